"""--diversity: lists of unlike items.

Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries"
(SIGIR 1998): choose one item after another, each time the item of maximal marginal relevance: (1 - X) times its
relevance, minus X times the maximum cosine between its embedding and those of the items already in the list.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.pools import CategoryCap, Pool, Selection, Unlikeness
from batchrec.rules.rule import Rule, RuleInputs

# Numbers of embeddings in memory at a time.
_BLOCK = 1 << 23


@dataclass(frozen=True)
class Diversity(Rule):
    """The X above, more than 0 and at most 1."""

    weight: float

    @classmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Return None for a weight of 0."""
        return cls(inputs.config.diversity) if inputs.config.diversity > 0 else None

    def compile(self, _vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Set the weight; the embeddings come from the model."""
        return replace(rules, diversity=self.weight)


def choose_unlike(
    pool: Pool, is_open: Bools, pin_allowed: Bools, selection: Selection, unlikeness: Unlikeness
) -> Longs:
    """Choose among the open items of each pool, given the pins that are allowed.

    is_open: (rows, depth) bool; pin_allowed: (rows, pins) bool.
    Returns columns of the pool, (rows, up to top_k) int64, in the order in which they are chosen, -1 after the last.
    """
    n_rows, depth = pool.items.shape
    chosen = np.full((n_rows, min(selection.top_k, depth)), -1)
    step = max(1, _BLOCK // max(1, depth * unlikeness.directions.shape[1]))
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        growing = _GrowingLists.of(pool.items[rows], selection.cap, unlikeness)
        for column, pin in enumerate(selection.pins):
            growing.add(np.full(len(pin_allowed[rows]), pin), pin_allowed[rows, column])
        relevance = _relevance(pool.scores[rows])
        _choose(pool.items[rows], relevance, is_open[rows].copy(), growing, chosen[rows])
    return chosen


@dataclass(frozen=True)
class _GrowingLists:
    """Lists as they grow, as far as the items of the pools depend on them.

    directions: (rows, depth, hidden_size) float32, of the items of the pools. nearest: (rows, depth) float32, the
    maximum cosine to an item of the list, -inf for an empty list. room: (rows, depth) int64, how many more items of its
    category the list may hold; categories: (rows, depth) int32.
    """

    cap: CategoryCap | None
    unlikeness: Unlikeness
    directions: Floats
    categories: Ints | None
    nearest: Floats
    room: Longs

    @classmethod
    def of(cls, items: Ints, cap: CategoryCap | None, unlikeness: Unlikeness) -> "_GrowingLists":
        """Start empty lists; items: (rows, depth)."""
        return cls(
            cap,
            unlikeness,
            unlikeness.directions[items],
            categories=None if cap is None else cap.categories[items],
            nearest=np.full(items.shape, -np.inf, np.float32),
            room=np.full(items.shape, 1 if cap is None else cap.maximum),
        )

    def add(self, items: Ints | Longs, is_added: Bools) -> None:
        """Add an item to the list of each row where is_added. items, is_added: (rows,)."""
        cosines = np.matmul(self.directions, self.unlikeness.directions[items][:, :, None])[:, :, 0]
        np.maximum(self.nearest, cosines, out=self.nearest, where=is_added[:, None])
        if self.cap is not None and self.categories is not None:
            own = self.cap.categories[items]
            self.room[is_added[:, None] & (self.categories == own[:, None]) & (self.categories >= 0)] -= 1


def _relevance(scores: Floats) -> Floats:
    """Scale the scores of each row to 0..1; 1 if all are equal."""
    is_item = scores != -np.inf
    highest = scores.max(axis=1, keepdims=True, initial=-np.inf)
    lowest = scores.min(axis=1, keepdims=True, initial=np.inf, where=is_item)
    spread = np.where(highest > lowest, highest - lowest, 1)
    relevance: Floats = np.where(is_item & (highest > lowest), (scores - lowest) / spread, 1).astype(np.float32)
    return relevance


def _choose(items: Ints, relevance: Floats, is_open: Bools, growing: _GrowingLists, chosen: Longs) -> None:
    """Fill `chosen`, one column per step."""
    rows, weight = np.arange(len(items)), np.float32(growing.unlikeness.weight)
    for step in range(chosen.shape[1]):
        unlike = np.where(growing.nearest == -np.inf, 0, growing.nearest)
        marginal = (1 - weight) * relevance - weight * unlike
        marginal[~is_open | (growing.room <= 0)] = -np.inf
        best = marginal.argmax(axis=1)
        is_added = marginal[rows, best] != -np.inf
        chosen[is_added, step] = best[is_added]
        is_open[rows, best] = False
        growing.add(items[rows, best], is_added)
