"""The options of score and recommend."""

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Literal

from batchrec.config.catalogue import CatalogueConfig
from batchrec.config.options import AGE, check, check_values, option, parse_age
from batchrec.config.rules import RulesConfig
from batchrec.config.run_date import end_of_day
from batchrec.config.shard import Shard

MAX_GPUS = 64
ScoringPrecision = Literal["fp32", "fp16", "int8"]
Layout = Literal["long", "nested"]
# The layouts of published rows: those of recommendations, and the one of similar items.
TargetLayout = Literal["long", "nested", "similar"]
EngineName = Literal["local", "ray", "spark"]


@dataclass(frozen=True)
class PublishingConfig:
    """Options of every job that publishes recommendations."""

    layout: Layout = option(
        "long", "Rows of the published table: one per recommendation (long), or one per user with a list (nested)."
    )


@dataclass(frozen=True)
class ScoringConfig(RulesConfig, PublishingConfig):
    """Options of `score`."""

    top_k: int = option(10, "Recommendations per user.", minimum=1)
    seen: str = option(
        "block",
        "Items that the user has seen. block: never recommend them. allow: recommend them like others. An age like 90d "
        "or 12w: recommend an item again if the user's last event with it is so many days before the run date.",
    )
    keep_seen: bool = option(False, "The same as --seen allow.")
    device: Literal["auto", "cuda", "cpu"] = option("auto", "Device to score on. cuda: an NVIDIA GPU.")
    explain: bool = option(
        False,
        "Add columns that name the part of the blend that carried each row, and the items of the history behind it.",
    )
    previous: str | None = option(
        None,
        "Recommendations of an earlier night. Users whose history has not changed keep theirs, if model, rules and "
        "options are the same.",
    )
    precision: ScoringPrecision = option(
        "fp32",
        "Number format of the model's arithmetic: int8 is faster on a CPU, fp16 on a GPU. The ranking stays nearly the "
        "same.",
    )
    users: str | None = option(
        None,
        "Score only these users: a file, the URL of a table or a .sql file, with a column user_id or a single column.",
    )
    engine: EngineName = option(
        "local",
        "Where chunks are scored: by threads of this machine, or by the workers of a Ray or Spark cluster.",
    )
    chunk_size: int | None = option(
        None, "Users read, scored and written at a time. Default: by the device.", minimum=1
    )
    batch_tokens: int | None = option(None, "History items per run of the model. Default: by the device.", minimum=1)
    workers: int | None = option(None, "Chunks scored at the same time. Default: by the device.", minimum=1)
    shard: str | None = option(
        None,
        "Score only the users of shard I of N, like 0/4, into a file of the folder --out. See batchrec commit.",
    )

    gpus: int = option(1, "GPUs of this machine to score on, with a process for each.", minimum=1, maximum=MAX_GPUS)

    @cached_property
    def part(self) -> Shard | None:
        """The shard; None for all users."""
        return None if self.shard is None else Shard.parse(self.shard)

    @property
    def seen_policy(self) -> str:
        """The policy on seen items: block, allow, or the days of an age, like 90d."""
        days = parse_age(self.seen)
        return "allow" if self.keep_seen else self.seen if days is None else f"{days}d"

    @property
    def seen_from(self) -> float:
        """The time, in Unix seconds, from which on an event blocks its item: -inf if all do, inf if none does."""
        days = parse_age(self.seen)
        if days is None:
            return math.inf if self.seen_policy == "allow" else -math.inf
        return end_of_day(self.night - timedelta(days=days))

    @property
    def files(self) -> dict[str, str]:
        """The files to read besides the histories, the model and --previous: option -> path."""
        names = ("items", "users", "allow", "block", "block_for_user", "candidates", "boost", "pins", "segments")
        named = {f"--{name.replace('_', '-')}": getattr(self, name) for name in names}
        return {option: file for option, file in named.items() if file is not None}

    def __post_init__(self) -> None:
        check_values(self)
        self.check_rules()
        is_policy = self.seen in {"block", "allow"} or parse_age(self.seen) is not None
        check(is_policy, "seen", self.seen, f"block, allow, or {AGE}")
        check(parse_age(self.seen) is None or not self.keep_seen, "seen", self.seen, "no --keep-seen with it")
        has_gpus = self.part is None and self.device != "cpu" and self.precision != "int8"
        check(self.gpus == 1 or has_gpus, "gpus", self.gpus, "1 with --shard, --device cpu or --precision int8")
        is_local = self.engine == "local"
        check(is_local or (self.gpus == 1 and self.part is None), "engine", self.engine, "local with --shard or --gpus")
        check(self.precision != "int8" or self.device != "cuda", "precision", self.precision, "fp16 or fp32 on a GPU")


@dataclass(frozen=True)
class RecommendConfig(CatalogueConfig):
    """Options of `recommend`."""

    top_k: int = option(10, "Number of recommendations to show.", minimum=1)
    user: str | int | None = option(None, "Recommend to this user of --sequences, instead of after items.")
    why: bool = option(
        False,
        "Name up to three items of the history per recommendation, with the score that it loses if each is left out.",
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class VectorsConfig:
    """Options of `export-vectors`."""

    device: Literal["auto", "cuda", "cpu"] = option(
        "auto", "Device to compute the users' vectors on. cuda: an NVIDIA GPU."
    )
    precision: Literal["fp32", "fp16"] = option("fp32", "Number format of the model's arithmetic.")

    def __post_init__(self) -> None:
        check_values(self)
