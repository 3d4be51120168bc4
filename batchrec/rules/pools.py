"""Pools of items, how lists are selected from them, and the lists: arrays of many users."""

from dataclasses import dataclass

import numpy as np

from batchrec.arrays import Bools, Codes, Floats, Ints, Longs
from batchrec.model.ranker import Ranking
from batchrec.model.reasons import Reasons
from batchrec.tables.schemas import BY_MODEL


@dataclass(frozen=True)
class RecLists(Ranking):
    """The lists of users; sources: (rows, k) int8, indexes of SOURCES, what each recommendation comes from.

    reasons: of the items, None without --explain.
    """

    sources: Codes
    reasons: Reasons | None = None

    @classmethod
    def empty(cls, n_rows: int, top_k: int) -> "RecLists":
        """Return lists without items, to be filled; their source is the model unless it is set."""
        shape = (n_rows, top_k)
        return cls(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32), np.full(shape, BY_MODEL, np.int8))

    def put(self, rows: Longs, lists: Ranking) -> None:
        """Set some rows."""
        self.scores[rows], self.items[rows] = lists.scores, lists.items
        if isinstance(lists, RecLists):
            self.sources[rows] = lists.sources

    def take_along(self, order: Longs) -> "RecLists":
        """Return the items of each row in another order; order: (rows, k) columns."""
        return RecLists(
            np.take_along_axis(self.scores, order, axis=1),
            np.take_along_axis(self.items, order, axis=1),
            np.take_along_axis(self.sources, order, axis=1),
        )


@dataclass(frozen=True)
class Pool:
    """Items to choose from, best first: scores, items and sources (rows, depth), score -inf for a forbidden item.

    pin_scores: (rows, pins) float32, -inf for a pin that is not allowed in a row. is_whole: (rows,) bool, whether a
    deeper pool of the row would hold no further item.
    """

    scores: Floats
    items: Ints
    sources: Codes
    pin_scores: Floats
    is_whole: Bools


@dataclass(frozen=True)
class CategoryCap:
    """At most `maximum` items of one category; categories: (size,) int32, -1 for an item that does not count."""

    categories: Ints
    maximum: int


@dataclass(frozen=True)
class Unlikeness:
    """The weight of unlikeness, from 0 to 1; directions: (size, hidden_size) float32, embeddings of length 1 or 0."""

    weight: float
    directions: Floats


@dataclass(frozen=True)
class Selection:
    """How lists are chosen from pools.

    pins: (pins,) int32; places: (pins,) int64, where in the list, from 0. cap: None without one; unlikeness: None if
    the items of a list may be alike.
    """

    top_k: int
    pins: Ints
    places: Longs
    cap: CategoryCap | None = None
    unlikeness: Unlikeness | None = None
