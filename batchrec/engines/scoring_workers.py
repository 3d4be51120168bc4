"""The scoring that every engine's workers run: one Scorer per process, chunks in, scored chunks out."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from batchrec.engines.shipping import from_bytes, outcome, outcomes, result_of, to_bytes
from batchrec.scoring.inputs import ScoringInputs
from batchrec.scoring.scorer import ScoredChunk, Scorer, ScorerParts, open_scorer


class ScoringWorker:
    """Scores chunks in a worker of an engine. The Scorer is opened once."""

    def __init__(self, parts: ScorerParts) -> None:
        self._parts = parts
        self._scorer: Scorer | None = None

    def score(self, chunk: bytes) -> bytes:
        """Score a chunk of `chunks_of`. Returns the outcome, whose result is a ScoredChunk."""
        return outcome(self._score, chunk)

    def _score(self, chunk: bytes) -> ScoredChunk:
        if self._scorer is None:
            self._scorer = open_scorer(self._parts)
        return self._scorer.score(from_bytes(result_of(chunk)))


def chunks_of(inputs: ScoringInputs, device: str) -> Iterator[bytes]:
    """Yield the chunks of the inputs as outcomes, without the columns that scoring does not read."""
    needs_times = math.isfinite(inputs.parts.config.seen_from) or inputs.parts.model.needs_days
    unread = {"weights"} if needs_times else {"weights", "timestamps"}
    names = [name for name in inputs.table.schema.names if name not in unread]
    yield from outcomes(to_bytes(chunk.select(names)) for chunk in inputs.chunks(device))


def shared_by(inputs: ScoringInputs, n_workers: int, device: Literal["cuda", "cpu"]) -> ScoringInputs:
    """Return the inputs with chunks for a number of workers with a device, and with the popular items counted.

    Carry-over is left out: it reads a file of this machine.
    """
    inputs.parts.offer.popular.open()
    config = inputs.parts.config
    # The run date must be the same in all workers, also at midnight.
    night = config.night.isoformat()
    config = replace(config, previous=None, workers=config.workers or n_workers, device=device, run_date=night)
    return replace(inputs, parts=replace(inputs.parts, config=config))
