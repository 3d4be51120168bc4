"""What a list is chosen from, how, and what comes out: arrays of many users."""

from dataclasses import dataclass

import numpy as np

from batchrec.arrays import Bools, Codes, Floats, Ints, Longs
from batchrec.model.ranker import Ranking
from batchrec.tables.schemas import BY_MODEL


@dataclass(frozen=True)
class RecLists(Ranking):
    """What users get; sources: (rows, k) int8, the place in SOURCES of what each recommendation comes from."""

    sources: Codes

    @classmethod
    def empty(cls, n_rows: int, top_k: int) -> "RecLists":
        """Make lists to fill, of items by the model."""
        shape = (n_rows, top_k)
        return cls(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32), np.full(shape, BY_MODEL, np.int8))

    def put(self, rows: Longs, lists: Ranking) -> None:
        """Fill some rows."""
        self.scores[rows], self.items[rows] = lists.scores, lists.items
        if isinstance(lists, RecLists):
            self.sources[rows] = lists.sources

    def take_along(self, order: Longs) -> "RecLists":
        """Put the items of each row in another order: (rows, k) columns."""
        return RecLists(
            np.take_along_axis(self.scores, order, axis=1),
            np.take_along_axis(self.items, order, axis=1),
            np.take_along_axis(self.sources, order, axis=1),
        )


@dataclass(frozen=True)
class Pool:
    """Items to choose from, best first: scores and sources (rows, depth), -inf for what a row may not have.

    pin_scores: (rows, pins) float32, -inf for a pin that may not stand in a row. is_whole: (rows,) bool, whether a row
    may have no further item.
    """

    scores: Floats
    items: Ints
    sources: Codes
    pin_scores: Floats
    is_whole: Bools


@dataclass(frozen=True)
class Selection:
    """How to choose.

    pins: (pins,) int32, and their places, int64 from 0. categories: (size,) int32, -1 for an item that counts nowhere;
    None for no cap. directions: (size, hidden_size) float32, embeddings of length 1 or 0; None if items may be alike.
    """

    top_k: int
    pins: Ints
    places: Longs
    categories: Ints | None = None
    max_per_category: int = 0
    diversity: float = 0.0
    directions: Floats | None = None
