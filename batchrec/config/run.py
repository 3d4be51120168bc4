"""The options of run: what a night does beyond its jobs, and what must hold before its table is published."""

import re
from dataclasses import dataclass
from typing import Literal

from batchrec.config.options import check, check_at_least, check_finite, option


@dataclass(frozen=True)
class RunConfig:
    """Options of `run`, beside those of build-sequences, train and score."""

    nights: str = option("nights", "Folder of the nights: the table and the report of each.")
    models: str = option("models", "Folder of the models: a version for each training, and the one in use.")
    keep: int = option(14, "Nights whose tables are kept, to roll back to.")
    keep_models: int = option(5, "Models that are kept, to roll back to.")
    lock: Literal["fail", "wait"] = option("fail", "What to do while another run is at work.")
    train_every: str = option("7d", "Age at which a model is trained anew: days like 7d, or weeks like 2w.")
    from_scratch: bool = option(False, "Train each model from nothing instead of going on from the one in use.")
    max_unknown_share: float = option(
        0.1, "Share of the newest events that are of items unknown to the model, above which it is trained anew."
    )
    gate_nights: int = option(7, "Nights before this one, of which the median is what the input is held against.")
    gate_min_input: float = option(0.5, "Least rows, users and items, as a share of that median.")
    gate_max_age_days: float | None = option(None, "Most days from the newest event to the run date.")
    gate_new_id_types: bool = option(
        False, "Publish a table whose ids of users or items are of another type than last night's."
    )
    gate_max_rejected: float = option(0.01, "Most rows that could not be used, as a share of all.")
    gate_max_ndcg_drop: float = option(
        0.1, "Most by which a new model's NDCG@10 is below that of the one in use, as a share of it."
    )
    gate_min_users: float = option(0.95, "Least users who get anything, as a share of all.")
    gate_min_full_lists: float = option(0.9, "Least users who get all of their k items, as a share of all.")
    gate_min_coverage: float = option(0.001, "Least share of the model's items that is recommended to anybody.")
    gate_max_top_items: float = option(0.9, "Most of all recommendations that the ten most frequent items make up.")
    gate_min_rule_rows: float = option(
        0.5,
        "Least rows of each rule table, and items left by --allow and --block, as a share of last night's.",
    )
    gate_min_overlap: float = option(0.02, "Least mean share of a list that stood in last night's list too.")

    def __post_init__(self) -> None:
        check_finite(self)
        check_at_least(self, 1, "keep", "keep_models", "gate_nights")
        check(
            re.fullmatch(r"[1-9]\d{0,3}[dw]", self.train_every) is not None,
            "train_every",
            self.train_every,
            "days like 7d, or weeks like 2w",
        )
        for name in (
            "max_unknown_share",
            "gate_min_input",
            "gate_max_rejected",
            "gate_max_ndcg_drop",
            "gate_min_users",
            "gate_min_full_lists",
            "gate_min_coverage",
            "gate_max_top_items",
            "gate_min_rule_rows",
            "gate_min_overlap",
        ):
            check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share from 0 to 1")
        check(
            self.gate_max_age_days is None or self.gate_max_age_days >= 0,
            "gate_max_age_days",
            self.gate_max_age_days,
            "0 or more",
        )

    @property
    def days_between_trainings(self) -> int:
        """Give --train-every in days."""
        return int(self.train_every[:-1]) * (7 if self.train_every.endswith("w") else 1)
