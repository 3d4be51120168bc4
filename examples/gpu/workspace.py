"""What the sections of gpu_check.py share: sizes, a log and models that are made when a section first needs them."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch

from batchrec.benchmark.bench import ENCODER
from batchrec.benchmark.models import write_instant
from batchrec.benchmark.synthetic import SHAPES, Shape, write_ratings
from batchrec.config import ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.model.blend import Blend
from batchrec.model.directory import replacing_model, write_manifest
from batchrec.model.vocabulary import Vocabulary
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.corpus import Corpus, read_corpus
from batchrec.training.encoder import Encoder
from batchrec.training.export import write_encoder

Result = TypeVar("Result")
# As training keeps and adds them.
_NEIGHBOURS, _RECENT_EVENTS = 50, 20


class Row(NamedTuple):
    """A row of a table, or, if the figure has several lines, a block of text; value: the figure as a number."""

    what: str
    figure: str
    value: float | None = None


@dataclass(frozen=True)
class Sizes:
    """Sizes of the sections: parity's log, widths with ties, the log of score and train, repeats, and many items.

    parity_minutes: of training one of parity's models. steps: of warm-up and of a profile. seconds: of timed training.
    many_users: scored with many_items.
    """

    parity: Shape
    parity_minutes: float
    widths: tuple[int, ...]
    log: Shape
    repeats: int
    steps: int
    seconds: float
    many_items: int
    many_users: int


FULL = Sizes(Shape(20_000, 5_000, 1_000_000), 0.15, (62_423, 1_000_000), SHAPES["ml-25m"], 3, 20, 20.0, 3_000_000, 2048)
TINY = Sizes(Shape(150, 400, 3_000), 0.01, (300,), Shape(300, 500, 9_000), 1, 2, 0.5, 2_000, 32)


@dataclass(frozen=True)
class Workspace:
    """A device to check, and a folder for files."""

    folder: Path
    device: Literal["cuda", "cpu"]
    sizes: Sizes

    @cached_property
    def seconds(self) -> dict[str, float]:
        """How long it took to make the log."""
        return {}

    @cached_property
    def sequences(self) -> Path:
        """The sequences of the log of score, host and train."""
        ratings, out = self.folder / "ratings.csv", self.folder / "sequences.parquet"
        shape = self.sizes.log
        self.seconds["a CSV generated"], _ = timed(write_ratings, shape, 0, ratings)
        seconds, _ = timed(build_sequences, [str(ratings)], SequencesConfig(), out)
        self.seconds[f"`build-sequences`, {shape.ratings:,} rows, one run"] = seconds
        ratings.unlink()
        return out

    @cached_property
    def corpus(self) -> Corpus:
        """The histories of the log in memory."""
        seconds, corpus = timed(read_corpus, self.sequences, 0)
        self.seconds["read the corpus"] = seconds
        return corpus

    @cached_property
    def plain(self) -> Path:
        """The untrained model of `bench`."""
        return self._untrained("plain", None)

    @cached_property
    def with_neighbours(self) -> Path:
        """The same with a blend of popularity and neighbours, as training makes it by default."""
        return self._untrained("neighbours", random_blend(self.corpus.vocabulary.size, habit=0.0))

    @cached_property
    def with_habit(self) -> Path:
        """The same with a blend that has every part, as train --repeat-items makes it."""
        return self._untrained("habit", random_blend(self.corpus.vocabulary.size, habit=0.5))

    @cached_property
    def instant(self) -> Path:
        """The model of `bench` that ranks in no time."""
        write_instant(self.plain, self.folder / "instant")
        return self.folder / "instant"

    def _untrained(self, name: str, blend: Blend | None) -> Path:
        torch.manual_seed(0)
        vocabulary = self.corpus.vocabulary
        return write_model(Encoder(vocabulary.size, ENCODER), vocabulary, self.folder / name, blend)

    def score_seconds(self, model: Path, **options: Any) -> float:
        """Time `score` on the log, from reading to the finished table."""
        config = ScoringConfig(**{"device": self.device, **options})
        seconds, _ = timed(score, self.sequences, model, config, self.folder / "recs.parquet")
        return seconds


def write_model(encoder: Encoder, vocabulary: Vocabulary, out: Path, blend: Blend | None) -> Path:
    """Write a model directory, and return it."""
    with replacing_model(out) as folder:
        write_encoder(encoder.eval(), folder, blend)
        sizes = None if blend is None else blend.sizes
        write_manifest(folder, vocabulary, encoder.shape, TrainingConfig(), {}, sizes)
    return out


def random_blend(vocabulary_size: int, habit: float) -> Blend:
    """Return a blend with random biases and neighbours; habit: its factors, 0 for a blend without habit."""
    generator = np.random.default_rng(0)
    pairs = (vocabulary_size, _NEIGHBOURS)
    neighbours = generator.integers(FIRST_ITEM, vocabulary_size, pairs, dtype=np.int32)
    return Blend(
        scale=np.ones(1, np.float32),
        biases=generator.normal(size=vocabulary_size).astype(np.float32),
        neighbours=neighbours,
        similarities=generator.random(pairs, dtype=np.float32),
        recency=np.full(_RECENT_EVENTS, 0.1, np.float32),
        habit=np.full(2, habit, np.float32),
    )


def timed(function: Callable[..., Result], *arguments: Any) -> tuple[float, Result]:
    """Return the seconds of a call, and its result."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def nvidia_smi(field: str) -> str:
    """Return a field of the first GPU by nvidia-smi; empty if that fails."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return lines[0].strip() if lines else ""


@contextmanager
def watched(field: str) -> Iterator[list[float]]:
    """Yield a list that grows by a field of nvidia-smi twice a second; it stays empty without a GPU."""
    values: list[float] = []
    has_ended = Event()

    def watch() -> None:
        while not has_ended.wait(0.5):
            values.extend(float(text) for text in [nvidia_smi(field)] if text.isdecimal())

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield values
    finally:
        has_ended.set()
        thread.join()
