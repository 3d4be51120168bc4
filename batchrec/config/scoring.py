"""The options of score and recommend."""

from dataclasses import dataclass
from typing import Literal

from batchrec.config.catalogue import CatalogueConfig
from batchrec.config.options import check, check_at_least, option
from batchrec.config.rules import RulesConfig

ScoringPrecision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class ScoringConfig(RulesConfig):
    """Options of `score`."""

    top_k: int = option(10, "Recommendations for each user.")
    keep_seen: bool = option(False, "Recommend items of the user's history too.")
    device: Literal["auto", "cuda", "cpu"] = option("auto", "Where to score.")
    previous: str | None = option(
        None, "Recommendations of an earlier night: users whose history is the same keep theirs, if the model is too."
    )
    precision: ScoringPrecision = option(
        "fp32",
        "Numbers that the model computes in; int8 is faster on a CPU, fp16 on a GPU, the ranking nearly the same.",
    )
    users: str | None = option(None, "Score these users only: CSV or Parquet with a column user_id, or one column.")
    chunk_size: int | None = option(None, "Users read, scored and written at a time; chosen by device if not given.")
    batch_tokens: int | None = option(
        None, "Items of histories in one run of the model; chosen by device if not given."
    )
    workers: int | None = option(None, "Chunks scored at a time; chosen by device if not given.")

    @property
    def files(self) -> dict[str, str]:
        """Give what is read beside the histories, the model and --previous: option -> path."""
        names = ("items", "users", "allow", "block", "block_for_user", "candidates", "boost", "pins", "segments")
        named = {f"--{name.replace('_', '-')}": getattr(self, name) for name in names}
        return {option: file for option, file in named.items() if file is not None}

    def __post_init__(self) -> None:
        check_at_least(self, 1, "top_k", "chunk_size", "batch_tokens", "workers")
        self.check_rules()
        check(self.precision != "int8" or self.device != "cuda", "precision", self.precision, "fp16 or fp32 on a GPU")


@dataclass(frozen=True)
class RecommendConfig(CatalogueConfig):
    """Options of `recommend`."""

    top_k: int = option(10, "Recommendations to show.")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "top_k")
