"""The options of bench."""

from dataclasses import dataclass
from typing import Literal

from batchrec.config.options import check, check_at_least, option
from batchrec.config.scoring import ScoringPrecision


@dataclass(frozen=True)
class BenchConfig:
    """Options of `bench`."""

    shape: Literal["ml-1m", "ml-20m", "ml-25m"] = option("ml-25m", "MovieLens whose users, items and ratings to have.")
    users: int | None = option(None, "Users, with --items and --ratings, instead of --shape.")
    items: int | None = option(None, "Items in the catalogue.")
    ratings: int | None = option(None, "Ratings of all users.")
    top_k: int = option(100, "Recommendations for each user.")
    device: Literal["auto", "cuda", "cpu"] = option("auto", "Where to score.")
    precision: ScoringPrecision = option("fp32", "Numbers that the model computes in.")
    repeats: int = option(3, "Times that each stage is run; the median counts.")
    seed: int = option(0, "Seed of the ratings.")
    folder: str | None = option(
        None, "Where to put the data while it is needed; the system's temporary folder if not given."
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "users", "items", "ratings", "top_k", "repeats")
        check(0 <= self.seed < 2**63, "seed", self.seed, "a number from 0 up to 2^63 - 1")
        given = [name for name in ("users", "items", "ratings") if getattr(self, name) is not None]
        check(len(given) in {0, 3}, given[0] if given else "users", "alone", "--users, --items and --ratings together")
