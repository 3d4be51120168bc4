"""Runs of the graph in pieces: with as many rows as onnxruntime can count scores and the device's memory holds."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchrec.arrays import Ints, Longs
from batchrec.model.batching import SeenPairs
from batchrec.model.blend import ScoredPairs

_log = logging.getLogger(__name__)

# Rows of more scores than WIDE are ranked by groups: docs/decisions/top-k-in-the-graph.md has the figures.
WIDE, GROUP = 500_000, 32
# Kernels of onnxruntime and cuDNN count the elements of a tensor in 32 bits.
_MAX_SCORES = 2**31 - 1
# The errors of onnxruntime's arena, CUDA, cuBLAS and cuDNN if the memory of the device is full.
_IS_FULL = re.compile(
    "Failed to allocate memory|is smaller than requested bytes|out of memory|ALLOC_FAILED|ALLOCATION_FAILED"
)


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run that belong to its rows, and top_k; see NextItemRanker.forward."""

    tokens: Ints
    seen: SeenPairs
    top_k: int
    habits: ScoredPairs
    asked: SeenPairs

    def of_rows(self, rows: Longs) -> "RunInputs":
        """Keep some rows, numbered from 0."""
        n_rows = len(self.tokens)
        return RunInputs(
            self.tokens[rows],
            self.seen.of_rows(rows, n_rows),
            self.top_k,
            self.habits.of_rows(rows, n_rows),
            self.asked.of_rows(rows, n_rows),
        )


class Runs:
    """Calls a function that runs the graph, piece by piece. Several threads may do so at once."""

    def __init__(self, run: Callable[[RunInputs, Sequence[str]], list[NDArray[Any]]], n_indexes: int) -> None:
        """run: returns outputs of the graph by their names; n_indexes: the size of the vocabulary."""
        self._run, self._max_rows = run, max_rows(n_indexes)

    def __call__(self, inputs: RunInputs, outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Return the outputs for all rows, those of asked pairs in the order of the pairs.

        If the memory of the device is full, the rows are halved, for all later runs too. Raises what `run` raises for
        any other reason, or for a single row.
        """
        n_rows, start = len(inputs.tokens), 0
        ends: list[int] = []
        found: list[list[NDArray[Any]]] = []
        while start < n_rows or not found:
            end = min(start + self._max_rows, n_rows)
            piece = inputs if end - start == n_rows else inputs.of_rows(np.arange(start, end))
            try:
                found.append(self._run(piece, outputs))
            except Exception as error:  # onnxruntime's errors share no base class of their own
                if end - start <= 1 or not _IS_FULL.search(str(error)):
                    raise
                self._max_rows = min(self._max_rows, (end - start) // 2)
                _log.info("the device's memory is full: the model runs with up to %d users at a time", self._max_rows)
                continue
            ends.append(end)
            start = end
        if len(found) == 1:
            return found[0]
        joined = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        # Pieces have their own pairs together.
        order = np.argsort(np.searchsorted(ends, inputs.asked.rows, side="right"), kind="stable")
        for place in (place for place, name in enumerate(outputs) if name == "asked_scores"):
            joined[place][order] = joined[place].copy()
        return joined


def max_rows(n_indexes: int) -> int:
    """Return how many rows of scores for a vocabulary one tensor holds, at least 1."""
    return max(1, _MAX_SCORES // (n_indexes + GROUP))
