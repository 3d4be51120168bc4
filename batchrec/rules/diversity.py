"""Lists of unlike items.

Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries"
(SIGIR 1998): one after another the item with the most marginal relevance, (1 - X) of its relevance less X of the
greatest cosine between its embedding and that of an item that is in the list.
"""

from dataclasses import dataclass

import numpy as np

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.rules.pools import Pool, Selection

# Numbers of embeddings held at a time.
_BLOCK = 1 << 23


def choose_unlike(pool: Pool, is_open: Bools, pin_allowed: Bools, selection: Selection) -> Longs:
    """Choose among the open items of each pool, beside the pins that stand.

    is_open: (rows, depth) bool; pin_allowed: (rows, pins) bool.
    Returns columns of the pool, (rows, up to top_k) int64, in the order in which they are chosen, -1 beyond the last.
    """
    assert selection.directions is not None  # noqa: S101 - else all items are alike
    n_rows, depth = pool.items.shape
    chosen = np.full((n_rows, min(selection.top_k, depth)), -1)
    step = max(1, _BLOCK // max(1, depth * selection.directions.shape[1]))
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        growing = _Growing.of(pool.items[rows], selection)
        for column, pin in enumerate(selection.pins):
            growing.add(np.full(len(pin_allowed[rows]), pin), pin_allowed[rows, column])
        relevance = _relevance(pool.scores[rows])
        _choose(pool.items[rows], relevance, is_open[rows].copy(), growing, chosen[rows])
    return chosen


@dataclass(frozen=True)
class _Growing:
    """Lists as they grow, seen from the pools: nearest (rows, depth) float32, -inf before any item is in the list.

    directions: (rows, depth, hidden_size) float32. room: (rows, depth) int64, items that the category still takes.
    """

    selection: Selection
    directions: Floats
    categories: Ints | None
    nearest: Floats
    room: Longs

    @classmethod
    def of(cls, items: Ints, selection: Selection) -> "_Growing":
        assert selection.directions is not None  # noqa: S101 - as above
        categories = None if selection.categories is None else selection.categories[items]
        room = np.full(items.shape, selection.max_per_category if selection.categories is not None else 1)
        return cls(selection, selection.directions[items], categories, np.full(items.shape, -np.inf, np.float32), room)

    def add(self, items: Ints | Longs, is_added: Bools) -> None:
        """Put an item into the list of each row where is_added. items, is_added: (rows,)."""
        assert self.selection.directions is not None  # noqa: S101 - as above
        cosines = np.matmul(self.directions, self.selection.directions[items][:, :, None])[:, :, 0]
        np.maximum(self.nearest, cosines, out=self.nearest, where=is_added[:, None])
        if self.categories is not None and self.selection.categories is not None:
            own = self.selection.categories[items]
            self.room[is_added[:, None] & (self.categories == own[:, None]) & (self.categories >= 0)] -= 1


def _relevance(scores: Floats) -> Floats:
    """Scale the scores of each row to 0..1; 1 where all are the same."""
    is_item = scores != -np.inf
    most = scores.max(axis=1, keepdims=True, initial=-np.inf)
    least = scores.min(axis=1, keepdims=True, initial=np.inf, where=is_item)
    spread = np.where(most > least, most - least, 1)
    relevance: Floats = np.where(is_item & (most > least), (scores - least) / spread, 1).astype(np.float32)
    return relevance


def _choose(items: Ints, relevance: Floats, is_open: Bools, growing: _Growing, chosen: Longs) -> None:
    """Fill `chosen`, a column a step."""
    rows, diversity = np.arange(len(items)), np.float32(growing.selection.diversity)
    for step in range(chosen.shape[1]):
        unlike = np.where(growing.nearest == -np.inf, 0, growing.nearest)
        marginal = (1 - diversity) * relevance - diversity * unlike
        marginal[~is_open | (growing.room <= 0)] = -np.inf
        best = marginal.argmax(axis=1)
        is_added = marginal[rows, best] != -np.inf
        chosen[is_added, step] = best[is_added]
        is_open[rows, best] = False
        growing.add(items[rows, best], is_added)
