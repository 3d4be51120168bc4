"""The options of bench."""

from dataclasses import dataclass
from typing import Literal

from batchrec.config.options import MAX_SEED, check, check_values, option
from batchrec.config.scoring import ScoringPrecision


@dataclass(frozen=True)
class BenchConfig:
    """Options of `bench`."""

    shape: Literal["ml-1m", "ml-20m", "ml-25m", "3m-items"] = option(
        "ml-25m",
        "MovieLens dataset whose numbers of users, items and ratings to generate. "
        "3m-items: a wide catalogue, of which 4,000 users are scored.",
    )
    users: int | None = option(None, "Number of users, with --items and --ratings, instead of --shape.", minimum=1)
    items: int | None = option(None, "Number of items in the catalogue.", minimum=1)
    ratings: int | None = option(None, "Number of ratings of all users.", minimum=1)
    top_k: int = option(100, "Recommendations per user.", minimum=1)
    device: Literal["auto", "cuda", "cpu"] = option("auto", "Device to score on. cuda: an NVIDIA GPU.")
    precision: ScoringPrecision = option("fp32", "Number format of the model's arithmetic.")
    repeats: int = option(3, "Runs of each stage; the median is reported.", minimum=1)
    seed: int = option(0, "Random seed of the generated ratings.", minimum=0, maximum=MAX_SEED)
    folder: str | None = option(None, "Folder for the data while bench runs. Default: the system's temporary folder.")

    def __post_init__(self) -> None:
        check_values(self)
        given = [name for name in ("users", "items", "ratings") if getattr(self, name) is not None]
        check(len(given) in {0, 3}, given[0] if given else "users", "alone", "--users, --items and --ratings together")
