"""The blend: simple signals that are added to the encoder's score of an item.

score = scale x (state of the user x embedding of the item) + bias of the item + what the newest items of the history
add to their neighbours + what the user's habit adds to the items of the history. The bias is scale x that of the
encoder, and the item's popularity. Training fits the weights (training/blend.py); the graph adds the parts whose weight
is not 0 (training/ranking_graph.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchrec.arrays import Floats, Ints, Longs
from batchrec.model.batching import Histories, numbered_rows, spans

# The prefix of the blend's arrays in the weights file, and the fields of the arrays.
PREFIX = "blend."
ARRAYS = ("scale", "biases", "neighbours", "similarities", "recency", "habit")


@dataclass(frozen=True)
class BlendSizes:
    """The sizes of a blend: neighbours per item, and newest items of a history whose neighbours are added."""

    n_neighbours: int
    n_recent: int

    def shapes(self, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every array of the blend, by its name in the weights file."""
        pairs = (vocabulary_size, self.n_neighbours)
        shapes = ((1,), (vocabulary_size,), pairs, pairs, (self.n_recent,), (2,))
        return {PREFIX + name: shape for name, shape in zip(ARRAYS, shapes, strict=True)}


@dataclass(frozen=True)
class Blend:
    """The arrays of a blend, float32 except the neighbours.

    scale: (1,), the factor on the encoder's products. biases: (vocabulary,), of the items, instead of the encoder's.
    neighbours, similarities: (vocabulary, n); the neighbours are indexes, int32, PAD beyond the last one, where the
    similarity is 0. recency: (q,), the factors on the similarities of the newest item of a history, the second newest,
    ... habit: (2,), the factors on log(1 + times taken) and on 1 / (1 + number of other items taken since).
    """

    scale: Floats
    biases: Floats
    neighbours: Ints
    similarities: Floats
    recency: Floats
    habit: Floats

    @property
    def sizes(self) -> BlendSizes:
        """The sizes of the arrays."""
        return BlendSizes(self.neighbours.shape[1], len(self.recency))

    @property
    def has_encoder(self) -> bool:
        """Whether the encoder's score counts."""
        return bool(self.scale[0])

    @property
    def has_neighbours(self) -> bool:
        """Whether the neighbours of the newest items are added."""
        return bool(self.recency.any())

    @property
    def has_habit(self) -> bool:
        """Whether the user's habit is added."""
        return bool(self.habit.any())

    def arrays(self) -> dict[str, Any]:
        """Return the arrays by their names in the weights file."""
        return {PREFIX + name: getattr(self, name) for name in ARRAYS}


@dataclass(frozen=True)
class ScoredPairs:
    """Numbers to add to the scores of items: rows (pairs,) int64, items (pairs,) int64, scores (pairs,) float32."""

    rows: Longs
    items: Longs
    scores: Floats

    def of_rows(self, rows: Longs, n_rows: int) -> "ScoredPairs":
        """Keep the pairs of some of n_rows rows, and number these rows from 0."""
        is_kept, numbers = numbered_rows(self.rows, rows, n_rows)
        return ScoredPairs(numbers, self.items[is_kept], self.scores[is_kept])


NO_HABITS = ScoredPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class TakenItems:
    """The distinct items of histories: row r, its items, how often and how lately they were taken.

    rows, items: (pairs,) int64, each pair once. counts: (pairs,) int64, times taken. places: (pairs,) int64, number of
    other distinct items taken since, 0 for the newest.
    """

    rows: Longs
    items: Longs
    counts: Longs
    places: Longs


def taken_items(histories: Histories, users: Longs) -> TakenItems:
    """Count the items of each user's full history, row r for users[r]."""
    lengths = histories.lengths[users]
    events = spans(histories.offsets[users], lengths)
    rows = np.repeat(np.arange(len(users)), lengths)
    items = histories.items[events].astype(np.int64)
    # By row and item, newest event first.
    order = np.lexsort((-events, items, rows))
    rows, items, events = rows[order], items[order], events[order]
    is_first = (np.diff(rows, prepend=-1) != 0) | (np.diff(items, prepend=-1) != 0)
    starts = np.flatnonzero(is_first)
    counts = np.diff(starts, append=len(rows))
    rows, items, newest = rows[starts], items[starts], events[starts]
    order = np.lexsort((-newest, rows))
    rows, items, counts = rows[order], items[order], counts[order]
    n_items = np.bincount(rows, minlength=len(users))
    return TakenItems(rows, items, counts, spans(np.zeros(len(users), np.int64), n_items))


def habits(blend: Blend, histories: Histories, users: Longs) -> ScoredPairs:
    """Return what the habit of each user adds to the items of the history, row r for users[r]."""
    if not blend.has_habit:
        return NO_HABITS
    taken = taken_items(histories, users)
    scores = habit_columns(taken) @ blend.habit
    return ScoredPairs(taken.rows, taken.items, scores.astype(np.float32))


def habit_columns(taken: TakenItems) -> Floats:
    """Return the two columns that the factors of Blend.habit weigh: (pairs, 2) float32."""
    columns = np.stack([np.log1p(taken.counts), 1 / (1 + taken.places)], axis=1)
    return columns.astype(np.float32)
