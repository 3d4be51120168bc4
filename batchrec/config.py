"""The options of each job: frozen, checked when made. The command line is generated from these fields."""

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal

from batchrec.errors import ConfigError

Device = Literal["auto", "cuda", "mps", "cpu"]
Objective = Literal["causal", "masked"]
Precision = Literal["auto", "fp32", "bf16"]
ScoringPrecision = Literal["fp32", "fp16", "int8"]

# As many as any log spans; more would not fit into seconds.
_MOST_DAYS = 1_000_000


def option(default: Any, text: str) -> Any:
    """Declare a field with its default and the text of its command line help."""
    return field(default=default, metadata={"help": text})


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {expected}")


def _check_at_least(config: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _check(value is None or value >= least, name, value, f"{least} or more")


def _check_fraction(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _check(value is None or 0 <= value < 1, name, value, "a number from 0 up to, but not, 1")


@dataclass(frozen=True)
class SequencesConfig:
    """Options of `build-sequences`."""

    query: str | None = option(None, "A file with one SELECT of user_id, item_id and timestamp, instead of --ratings.")
    user_column: str = option("userId", "Column of the user's id.")
    item_column: str = option("movieId", "Column of the item's id.")
    timestamp_column: str = option("timestamp", "Column of the event's time (UTC): a number, ISO text or a timestamp.")
    rating_column: str = option("rating", "Column of the rating; read only with --min-rating.")
    min_rating: float | None = option(None, "Leave out events rated lower.")
    min_item_events: int = option(1, "Leave out items with fewer events.")
    min_user_events: int = option(1, "Then leave out users with fewer events.")
    repeats: Literal["last", "first", "all"] = option("last", "Which events of a user with the same item to keep.")
    timestamp_unit: Literal["auto", "s", "ms", "us"] = option("auto", "Unit of numeric times; auto goes by their size.")
    max_bad_rows: str = option("0", "How many rows may be unusable before the job fails: a number, or a share like 1%.")
    memory_limit: str | None = option(None, "Most memory DuckDB may use before it spills to disk, like 2GB.")
    threads: int | None = option(None, "Threads DuckDB may use; all cores if not given.")

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "min_item_events", "min_user_events", "threads")
        _check(self.threads is None or self.threads <= 1024, "threads", self.threads, "1024 or less")
        _check(
            re.fullmatch(r"\d+|\d+(\.\d+)?%", self.max_bad_rows) is not None,
            "max_bad_rows",
            self.max_bad_rows,
            "a number of rows like 100, or a share like 0.5%",
        )

    def bad_rows_allowed(self, n_rows: int) -> int:
        """Count the unusable rows allowed among `n_rows`."""
        if self.max_bad_rows.endswith("%"):
            return int(n_rows * Fraction(self.max_bad_rows[:-1]) / 100)
        return int(self.max_bad_rows)


@dataclass(frozen=True)
class TrainingConfig:
    """Options of `train`."""

    objective: Objective = option(
        "causal", "Predict each next item from those before it (SASRec), or masked items from all others (BERT4Rec)."
    )
    max_len: int | None = option(None, "Newest items of a history that the model sees; 16 to 200, by the histories.")
    hidden_size: int | None = option(None, "Size of the embeddings and of the hidden states; 64 or 128, by the events.")
    n_layers: int = option(2, "Transformer blocks.")
    n_heads: int = option(2, "Attention heads in each block; divides the hidden size.")
    dropout: float | None = option(None, "Share of activations dropped in training; 0.2 or 0.3, by the events.")
    keep_ties: bool = option(
        False, "Learn the order in which items of one moment stand, instead of a new random one every time."
    )
    mask_prob: float = option(0.2, "masked: share of a history's items that are masked.")
    last_mask_prob: float = option(
        0.2, "masked: share of histories of which the last item alone is masked, as in scoring."
    )
    negatives: int | None = option(
        None,
        "Items, drawn for each step, that an item must be told from; 0 for all. All of up to 5,000, or else 3,000.",
    )
    batch_size: int | None = option(None, "Windows of histories in a training step; 16 to 256, by their number.")
    learning_rate: float = option(1e-3, "Learning rate of AdamW after warm-up.")
    weight_decay: float = option(0.01, "Weight decay of AdamW.")
    warmup_steps: int = option(100, "Steps in which the learning rate rises from 0.")
    max_epochs: int = option(200, "Most epochs: passes over the histories, several at once where they are few.")
    min_epoch_steps: int = option(100, "Least training steps in an epoch.")
    max_minutes: float = option(55.0, "Start no further epoch after so many minutes of training.")
    patience: int = option(15, "Epochs without a better NDCG@10 on held-out items before training stops.")
    validation_users: int = option(2000, "Most users whose last item is held out; never more than half of all.")
    seed: int = option(0, "Seed of everything random: one seed repeats a run on one machine.")
    device: Device = option("auto", "Where to train.")
    precision: Precision = option("auto", "Numbers that matrices are multiplied in; auto is bf16 where it is fast.")
    init_from: str | None = option(None, "Model directory to go on from; items keep what was learned of them, by id.")

    def __post_init__(self) -> None:
        _check_at_least(
            self,
            1,
            "hidden_size",
            "n_layers",
            "n_heads",
            "batch_size",
            "max_epochs",
            "min_epoch_steps",
            "patience",
            "validation_users",
        )
        _check_at_least(self, 2, "max_len")
        _check_at_least(self, 0, "warmup_steps", "negatives")
        _check(self.max_minutes > 0, "max_minutes", self.max_minutes, "more than 0")
        _check_fraction(self, "dropout", "mask_prob", "last_mask_prob")
        _check(self.mask_prob > 0, "mask_prob", self.mask_prob, "more than 0")
        _check(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "more than 0, and 1 or less")
        _check(0 <= self.weight_decay <= 1, "weight_decay", self.weight_decay, "a number from 0 to 1")
        _check(0 <= self.seed < 2**63, "seed", self.seed, "a number from 0 up to 2^63 - 1")
        _check(
            self.hidden_size is None or self.hidden_size % self.n_heads == 0,
            "n_heads",
            self.n_heads,
            f"a divisor of --hidden-size {self.hidden_size}",
        )


@dataclass(frozen=True)
class EncoderShape:
    """What an encoder is, every size given; the fields are those of TrainingConfig."""

    objective: Objective
    max_len: int
    hidden_size: int
    n_layers: int
    n_heads: int
    dropout: float


@dataclass(frozen=True)
class CatalogueConfig:
    """Where titles of items are found."""

    items: str | None = option(None, "Catalogue with a title for each item: CSV or Parquet; a file, folder or glob.")
    item_column: str = option("movieId", "Column of the item's id in the catalogue.")
    title_column: str = option("title", "Column of the item's title in the catalogue.")


@dataclass(frozen=True)
class ScoringConfig(CatalogueConfig):
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

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "top_k", "chunk_size", "batch_tokens", "workers")
        _check(self.precision != "int8" or self.device != "cuda", "precision", self.precision, "fp16 or fp32 on a GPU")


@dataclass(frozen=True)
class RecommendConfig(CatalogueConfig):
    """Options of `recommend`."""

    top_k: int = option(10, "Recommendations to show.")

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "top_k")


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
        _check_at_least(self, 1, "users", "items", "ratings", "top_k", "repeats")
        _check(0 <= self.seed < 2**63, "seed", self.seed, "a number from 0 up to 2^63 - 1")
        given = [name for name in ("users", "items", "ratings") if getattr(self, name) is not None]
        _check(len(given) in {0, 3}, given[0] if given else "users", "alone", "--users, --items and --ratings together")


@dataclass(frozen=True)
class EvaluationConfig:
    """Options of `evaluate`, beside those of the training."""

    protocol: Literal["leave-one-out", "temporal"] = option(
        "leave-one-out", "Test on each user's last item, or on all that comes after a moment."
    )
    cut: str | None = option(None, "temporal: the moment from which on events are the test, an ISO date or time (UTC).")
    test_days: float | None = option(
        None, "temporal: days at the end of the log to test on, without --cut; 7 if not given."
    )
    top_k: int = option(10, "Recommendations for each user, the k of the metrics.")
    keep_seen: bool = option(False, "Recommend, and test on, items of the user's history too.")
    test_users: int | None = option(None, "Test a random sample of that many users; all if not given.")
    popular_days: int = option(30, "Days at the end of the training part that the newer popularity looks at.")
    als_factors: int = option(64, "Factors of implicit ALS, where batchrec[als] is installed.")
    n_resamples: int = option(1000, "Bootstrap resamples of the users, for the 95 % intervals.")

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "top_k", "test_users", "popular_days", "als_factors")
        _check_at_least(self, 100, "n_resamples")
        _check(self.popular_days <= _MOST_DAYS, "popular_days", self.popular_days, f"{_MOST_DAYS} or less")
        _check(
            self.test_days is None or 0 < self.test_days <= _MOST_DAYS,
            "test_days",
            self.test_days,
            f"more than 0, and {_MOST_DAYS} or less",
        )
        if self.cut is not None:
            _check(self.test_days is None, "test_days", self.test_days, "--cut or --test-days, not both")
            _check(_is_moment(self.cut), "cut", self.cut, "an ISO date or time like 2024-06-01 or 2024-06-01T12:00:00")
        if self.protocol != "temporal":
            for name in ("cut", "test_days"):
                value = getattr(self, name)
                _check(value is None, name, value, "--protocol temporal with it")

    @property
    def cut_moment(self) -> int | None:
        """Give the cut as the first whole second of the test, in Unix seconds; None where there is no --cut."""
        if self.cut is None:
            return None
        moment = datetime.fromisoformat(self.cut)
        return math.ceil((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
