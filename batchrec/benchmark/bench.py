"""The bench job: generate a log, run each stage of a night on it in its own process, and compare it with a limit."""

import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from batchrec.benchmark import limits
from batchrec.benchmark.isolated import Measurement, run_isolated
from batchrec.benchmark.models import write_instant, write_untrained
from batchrec.benchmark.polars_sequences import is_installed, polars_sequences
from batchrec.benchmark.synthetic import SHAPES, Shape, shorten_histories, take_users, write_ratings
from batchrec.config import BenchConfig, EncoderShape, ScoringConfig, SequencesConfig
from batchrec.config.arguments import checked
from batchrec.model.directory import load_model
from batchrec.model.ranker import Ranker
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.system.machine import n_cores
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.wide_top_k import is_wide

_log = logging.getLogger(__name__)

ENCODER = EncoderShape(objective="causal", max_len=128, hidden_size=128, n_layers=2, n_heads=4, dropout=0.0)
_SHARES = (1 / 16, 1 / 4, 1.0)
# Scoring all users of these shapes takes an hour without a GPU, so few are scored, and only of the whole log.
_SCORED_USERS = {"3m-items": 4000}
_SCAN, _ARITHMETIC, _COPY = "DuckDB's scan of the CSV", "its arithmetic, by BLAS", "a copy of its output"
_CHANGED = 20
_RESCORE = f"score, {1 / _CHANGED:.0%} of users changed"
# By stage: the unit of its throughput, and the limit it is compared with.
_LIMITS = {
    "build-sequences": ("ratings", _SCAN),
    "the same by polars": ("ratings", _SCAN),
    "score": ("users", _ARITHMETIC),
    "score, all but the model": ("users", _COPY),
    _RESCORE: ("users", "score"),
}


@dataclass(frozen=True)
class Stage:
    """A stage on the whole log: medians over the repeats.

    n: how many of `unit` it processes. limit: the name of its limit, which takes limit_seconds; ratio: seconds divided
    by limit_seconds, the median over the repeats.
    """

    name: str
    n: int
    unit: str
    seconds: float
    peak_mib: float
    limit: str
    limit_seconds: float
    ratio: float


@dataclass(frozen=True)
class Growth:
    """A stage on shares of the users: a fit says that its time grows as users to the power of `exponent`."""

    name: str
    users: list[int]
    seconds: list[float]
    peak_mib: list[float]
    exponent: float


@dataclass(frozen=True)
class BenchReport:
    """The log, the encoder and the machine of a benchmark, and its timings.

    items: that occur in the log, as the encoder has no other ones. scored_users: of the users. has_groups: whether the
    graph takes the top k by the maxima of groups.
    """

    users: int
    scored_users: int
    items: int
    ratings: int
    encoder: dict[str, Any]
    top_k: int
    has_groups: bool
    precision: str
    device: str
    cores: int
    repeats: int
    stages: list[Stage]
    growth: list[Growth]


@dataclass(frozen=True)
class _Log:
    """The folder with the files of a night for one generated log; scored_users: whose lists are made."""

    shape: Shape
    folder: Path
    scored_users: int

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def histories(self) -> Path:
        """The sequences of the users that are scored."""
        return self / ("sequences.parquet" if self.scored_users == self.shape.users else "scored.parquet")


@checked
def bench(config: BenchConfig = BenchConfig()) -> BenchReport:
    """Time the stages of a night on a generated log, each repeat together with its limits.

    Raises ConfigError if no log can have the shape, DeviceError if the device is missing.
    """
    shape, scored_users = SHAPES[config.shape], _SCORED_USERS.get(config.shape)
    if config.users and config.items and config.ratings:
        shape, scored_users = Shape(config.users, config.items, config.ratings), None
    with TemporaryDirectory(prefix="batchrec-bench-", dir=config.folder) as name:
        folder = Path(name)
        shapes = [shape] if scored_users else [shape.fraction(share) for share in _SHARES]
        logs = [_Log(own, folder / str(number), scored_users or own.users) for number, own in enumerate(shapes)]
        for log in logs:
            log.folder.mkdir()
            run_isolated(write_ratings, log.shape, config.seed, log / "ratings.csv")
        whole = logs[-1]
        # Not timed: it creates the inputs of the stages and brings the files into the page cache.
        run_isolated(build_sequences, [str(whole / "ratings.csv")], SequencesConfig(), whole / "sequences.parquet")
        if scored_users:
            run_isolated(take_users, whole / "sequences.parquet", scored_users, whole.histories)
        n_items = run_isolated(write_untrained, whole / "sequences.parquet", ENCODER, folder / "model").value
        run_isolated(write_instant, folder / "model", folder / "instant")
        config = replace(config, device=run_isolated(_device, folder / "model", config.device).value)
        turns = [
            _run_once(logs, folder, config, f"{number} of {config.repeats}") for number in range(1, config.repeats + 1)
        ]
    counts = {"ratings": shape.ratings, "users": whole.scored_users}
    return BenchReport(
        users=shape.users,
        scored_users=whole.scored_users,
        items=n_items,
        ratings=shape.ratings,
        encoder=asdict(ENCODER),
        top_k=config.top_k,
        has_groups=is_wide(n_items + FIRST_ITEM),
        precision=config.precision,
        device=config.device,
        cores=n_cores(),
        repeats=config.repeats,
        stages=list(_stages(turns, counts)),
        growth=[_growth(name, turns, logs) for name in ("build-sequences", "score") if len(logs) > 1],
    )


def _device(model: Path, wanted: Literal["auto", "cuda", "cpu"]) -> str:
    return Ranker(load_model(model).graph, wanted).device


def _run_once(
    logs: Sequence[_Log], folder: Path, config: BenchConfig, number: str
) -> dict[tuple[str, int], Measurement]:
    """Run everything once; return the measurements by stage name and number of the log."""
    scoring = ScoringConfig(top_k=config.top_k, device=config.device, precision=config.precision)
    on_cpu = ScoringConfig(top_k=config.top_k, device="cpu")
    turn: dict[tuple[str, int], Measurement] = {}

    def run(stage: str, log: int, function: Callable[..., Any], *arguments: Any) -> None:
        turn[stage, log] = measured = run_isolated(function, *arguments)
        _log.info("repeat %s: %s, a log of %d users: %.2f s", number, stage, logs[log].shape.users, measured.seconds)

    for n, log in enumerate(logs):
        run(
            "build-sequences",
            n,
            build_sequences,
            [str(log / "ratings.csv")],
            SequencesConfig(),
            log / "sequences.parquet",
        )
        run("score", n, score, log.histories, folder / "model", scoring, log / "recs.parquet")
    last, whole = len(logs) - 1, logs[-1]
    run_isolated(shorten_histories, whole.histories, _CHANGED, whole / "changed.parquet")
    rescoring = replace(scoring, previous=str(whole / "recs.parquet"))
    run(_RESCORE, last, score, whole / "changed.parquet", folder / "model", rescoring, whole / "rescored.parquet")
    run(_SCAN, last, limits.scan, whole / "ratings.csv")
    run(_ARITHMETIC, last, limits.scoring_seconds, whole.histories, folder / "model")
    # The limit is computed, not run: its value is the seconds.
    turn[_ARITHMETIC, last] = replace(turn[_ARITHMETIC, last], seconds=turn[_ARITHMETIC, last].value)
    run(
        "score, all but the model",
        last,
        score,
        whole.histories,
        folder / "instant",
        on_cpu,
        whole / "host.parquet",
    )
    run(_COPY, last, limits.copy, whole / "host.parquet", whole / "copy.parquet")
    if is_installed():
        run("the same by polars", last, polars_sequences, whole / "ratings.csv", whole / "polars.parquet")
    return turn


def _stages(turns: Sequence[dict[tuple[str, int], Measurement]], counts: dict[str, int]) -> Iterator[Stage]:
    last = max(number for _, number in turns[0])
    for name, (unit, limit) in _LIMITS.items():
        if (name, last) in turns[0]:
            own, limits_of_turns = ([turn[key, last] for turn in turns] for key in (name, limit))
            yield Stage(
                name=name,
                n=counts[unit],
                unit=unit,
                seconds=statistics.median(measured.seconds for measured in own),
                peak_mib=statistics.median(measured.peak_mib for measured in own),
                limit=limit,
                limit_seconds=statistics.median(measured.seconds for measured in limits_of_turns),
                ratio=statistics.median(
                    measured.seconds / limit.seconds for measured, limit in zip(own, limits_of_turns, strict=True)
                ),
            )


def _growth(name: str, turns: Sequence[dict[tuple[str, int], Measurement]], logs: Sequence[_Log]) -> Growth:
    users = [log.shape.users for log in logs]
    seconds = [statistics.median(turn[name, n].seconds for turn in turns) for n in range(len(logs))]
    peaks = [statistics.median(turn[name, n].peak_mib for turn in turns) for n in range(len(logs))]
    exponent = float(np.polyfit(np.log(users), np.log(seconds), 1)[0])
    return Growth(name, users, seconds, peaks, exponent)
