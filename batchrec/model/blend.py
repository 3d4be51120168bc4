"""The blend: simple signals that are added to the encoder's score of an item.

score = scale x (state of the user x embedding of the item) + bias of the item + what the newest items of the history
add to their neighbours + what the user's habit adds to the items of the history. The bias is scale x that of the
encoder, and the item's popularity. Training fits the weights (training/blend.py); the graph adds the parts whose weight
is not 0 (training/ranking_graph.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.model.batching import Histories, numbered_rows, spans

# How much a day counts, for each day with events since.
_PER_DAY = 0.9
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
    ... habit: (2,), the factors on log(1 + times taken) and on log(1 + days taken), where a day counts 0.9 to the power
    of the days with events since.
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
    """The distinct items of histories: row r, and its items.

    rows, items: (pairs,) int64, each pair once. places: (pairs,) int64, number of other distinct items taken since, 0
    for the newest. weights: (pairs,) float32, the largest weight of the events.
    """

    rows: Longs
    items: Longs
    places: Longs
    weights: Floats


def taken_items(histories: Histories, users: Longs) -> TakenItems:
    """List the distinct items of each user's full history, newest first; row r for users[r]."""
    rows, items, events = _events_by_item(histories, users)
    is_first = _differs(rows) | _differs(items)
    weights = np.ones(np.count_nonzero(is_first), np.float32)
    if histories.weights is not None and len(events):
        weights = np.maximum.reduceat(histories.weights[events], np.flatnonzero(is_first))
    rows, items, newest = rows[is_first], items[is_first], events[is_first]
    order = np.lexsort((-newest, rows))
    n_items = np.bincount(rows, minlength=len(users))
    places = spans(np.zeros(len(users), np.int64), n_items)
    return TakenItems(rows[order], items[order], places, weights[order])


def habits(blend: Blend, histories: Histories, users: Longs) -> ScoredPairs:
    """Return what the habit of each user adds to the items of the history, row r for users[r]."""
    if not blend.has_habit:
        return NO_HABITS
    rows, items, columns = habit_columns(histories, users)
    return ScoredPairs(rows, items, columns @ blend.habit)


def habit_columns(histories: Histories, users: Longs) -> tuple[Longs, Longs, Floats]:
    """Return the columns that the factors of Blend.habit weigh, for each distinct item of each user's full history.

    Without days each event is a day of its own. Returns rows (pairs,), items (pairs,) and columns (pairs, 2) float32.
    """
    own = histories.take(users)
    rows, items, events = _events_by_item(own, np.arange(len(users)))
    # Days are numbered over all these users.
    numbers: Longs = np.arange(len(own.items)) if own.same_day is None else np.cumsum(~own.same_day, dtype=np.int64)
    days = numbers[events]
    is_first = _differs(rows) | _differs(items)
    days_since = numbers[own.offsets[rows + 1] - 1] - days
    is_counted = is_first | _differs(days)
    starts = np.flatnonzero(is_first)
    n_days = np.add.reduceat(np.where(is_counted, _PER_DAY**days_since, 0), starts) if len(starts) else np.empty(0)
    n_times = np.diff(starts, append=len(rows))
    columns = np.log1p(np.stack([n_times, n_days], axis=1))
    return rows[starts], items[starts], columns.astype(np.float32)


def _events_by_item(histories: Histories, users: Longs) -> tuple[Longs, Longs, Longs]:
    """Return row, item and place of each event of the users' histories, by row and item, newest first."""
    lengths = histories.lengths[users]
    events = spans(histories.offsets[users], lengths)
    rows = np.repeat(np.arange(len(users)), lengths)
    items = histories.items[events].astype(np.int64)
    pairs = rows * (1 + items.max(initial=0)) + items
    # A stable sort from the newest event to the oldest, three times as fast as np.lexsort.
    order = len(pairs) - 1 - np.argsort(pairs[::-1], kind="stable")
    return rows[order], items[order], events[order]


def _differs(values: Longs) -> Bools:
    """Return whether each value differs from the one before; the first one does."""
    differs: Bools = np.diff(values, prepend=-1) != 0
    return differs
