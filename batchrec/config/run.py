"""The options of run: the night beyond its jobs, and the gates that its table must pass before it is published."""

from dataclasses import dataclass
from typing import Literal

from batchrec.config.options import check, check_values, option, parse_age


@dataclass(frozen=True)
class RunConfig:
    """Options of `run`, in addition to those of build-sequences, train and score."""

    nights: str = option("nights", "Folder of the nights: the table and the report of each night.")
    models: str = option("models", "Folder of the models: one version per training, and a link to the one in use.")
    keep: int = option(14, "Number of nights whose tables are kept to roll back to.", minimum=1)
    keep_models: int = option(5, "Number of models that are kept to roll back to.", minimum=1)
    lock: Literal["fail", "wait"] = option("fail", "If another run is in progress: fail, or wait for it.")
    similar: bool = option(
        False, "Also publish the table of similar items, by the options of the command similar, such as its --out."
    )
    report: bool = option(
        True, "Also write report.html into the folder of the night, and keep the histories of the newest night for it."
    )
    train_every: str = option("7d", "Age at which the model is retrained: days like 7d, or weeks like 2w.")
    from_scratch: bool = option(False, "Train each model from scratch, not from the weights of the one in use.")
    max_unknown_share: float = option(
        0.1,
        "Maximum share of the newest events whose item the model does not know; above it the model is retrained.",
        minimum=0,
        maximum=1,
    )
    gate_nights: int = option(7, "Number of earlier nights whose median the input is compared with.", minimum=1)
    gate_min_input: float = option(
        0.5, "Minimum number of rows, users and items, each as a share of that median.", minimum=0, maximum=1
    )
    gate_max_age_days: float | None = option(
        None, "Maximum number of days from the newest event to the run date.", minimum=0
    )
    gate_new_id_types: bool = option(
        False, "Also publish a table whose user or item ids have another type than last night's."
    )
    gate_max_rejected: float = option(0.01, "Maximum share of unusable input rows.", minimum=0, maximum=1)
    gate_max_ndcg_drop: float = option(
        0.1,
        "Maximum relative drop in NDCG@10 of a new model against the model in use, besides chance.",
        minimum=0,
        maximum=1,
    )
    gate_min_users: float = option(
        0.95, "Minimum share of users with at least one recommendation.", minimum=0, maximum=1
    )
    gate_min_full_lists: float = option(
        0.9,
        "Minimum share of users with a full list: k items, or all eligible ones if these are fewer.",
        minimum=0,
        maximum=1,
    )
    gate_min_coverage: float = option(
        0.001, "Minimum share of the eligible items that are recommended to at least one user.", minimum=0, maximum=1
    )
    gate_max_top_items: float = option(
        0.9, "Maximum share of all recommendations that the ten most frequent items make up.", minimum=0, maximum=1
    )
    gate_min_rule_rows: float = option(
        0.5,
        "Minimum number of rows of each rule table and of --users, and of items left by --allow and --block, as a "
        "share of last night's.",
        minimum=0,
        maximum=1,
    )
    gate_min_overlap: float = option(
        0.02, "Minimum mean share of a user's list that was also in last night's list.", minimum=0, maximum=1
    )

    gate_min_similar: float = option(
        0.5, "Minimum share of the model's items that have a list of similar items.", minimum=0, maximum=1
    )

    def __post_init__(self) -> None:
        check_values(self)
        check(
            parse_age(self.train_every) is not None,
            "train_every",
            self.train_every,
            "days like 7d, or weeks like 2w",
        )

    @property
    def days_between_trainings(self) -> int:
        """The value of --train-every in days."""
        days = parse_age(self.train_every)
        assert days is not None  # noqa: S101 - checked when the config is made
        return days
