"""The lists of similar items: the best other items of each item, by shared users, by vectors, or by both."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.config import SimilarMethod
from batchrec.model.batching import spans
from batchrec.model.blend import Blend
from batchrec.model.directory import Model
from batchrec.tables.schemas import FIRST_ITEM

# Scores that are computed at a time: 64 MB.
_SCORES_AT_A_TIME = 1 << 24
# The cosine of vectors counts by this factor next to that of users: measured, see docs/decisions/similar.md.
_VECTOR_WEIGHT = 0.1
# Digits of a score by vectors that count.
_DECIMALS = 6


@dataclass(frozen=True)
class SimilarRows:
    """Rows of lists, in the order of the lists' items, best first.

    items, similar: (rows,) int64, the index of the list's item and of the similar item. ranks: (rows,) int32, from 1.
    scores: (rows,) float32. is_shared: (rows,) bool, whether users share the two items, by the model's neighbours.
    """

    items: Longs
    ranks: Ints
    similar: Longs
    scores: Floats
    is_shared: Bools


@dataclass(frozen=True)
class SimilarLists:
    """The lists of items by one method.

    blend: holds the neighbours and similarities that count; None if none do. vectors: (vocabulary, n) float32, whose
    inner products count vector_weight times; None if they do not. is_eligible: (vocabulary,) bool, the items that a
    list may hold.
    """

    blend: Blend | None
    vectors: Floats | None
    vector_weight: float
    is_eligible: Bools

    @classmethod
    def of_model(cls, model: Model, method: SimilarMethod, is_eligible: Bools) -> "SimilarLists":
        """Take from a model what a method needs, which is not auto. Raises ModelError for missing vectors."""
        blend = None if method == "vectors" else model.blend
        vectors = None if method == "co-occurrence" else unit_vectors(model)
        return cls(blend, vectors, _VECTOR_WEIGHT if method == "blended" else 1.0, is_eligible)

    def chunks(self, items: Longs, top_k: int) -> Iterator[SimilarRows]:
        """Yield the rows of the top_k other items of each item; of equal scores the lower index comes first.

        By neighbours only, a list holds nothing but neighbours; with vectors it holds top_k items, or all eligible
        ones. Memory does not grow with the number of lists.
        """
        n_items = max(1, _SCORES_AT_A_TIME // len(self.is_eligible))
        for start in range(0, len(items), n_items):
            chunk = items[start : start + n_items]
            yield self._neighbours(chunk, top_k) if self.vectors is None else self._nearest(chunk, self.vectors, top_k)

    def _neighbours(self, items: Longs, top_k: int) -> SimilarRows:
        """Return the lists of items by their neighbours, which a model stores in the order of a list."""
        assert self.blend is not None  # noqa: S101 - the job refuses a model without one
        neighbours, similarities = self.blend.neighbours[items], self.blend.similarities[items]
        rows, places = np.nonzero((similarities > 0) & self.is_eligible[neighbours])
        ranks = _ranks(rows, len(items))
        rows, places, ranks = rows[ranks <= top_k], places[ranks <= top_k], ranks[ranks <= top_k]
        similar = neighbours[rows, places].astype(np.int64)
        return SimilarRows(items[rows], ranks, similar, similarities[rows, places], np.ones(len(rows), bool))

    def _nearest(self, items: Longs, vectors: Floats, top_k: int) -> SimilarRows:
        """Return the lists of items by the scores of all others: the products of vectors, and what neighbours add."""
        rows = np.arange(len(items))[:, None]
        scores = np.matmul(self.vector_weight * vectors[items], vectors.T, dtype=np.float32)
        is_shared = np.zeros(scores.shape, bool)
        if self.blend is not None:
            # An item is at most once among the neighbours of another one. PAD, after the last of them, adds 0.
            neighbours, similarities = self.blend.neighbours[items], self.blend.similarities[items]
            scores[rows, neighbours] += similarities
            is_shared[rows, neighbours] = similarities > 0
        scores[:, ~self.is_eligible] = -np.inf
        scores[rows[:, 0], items] = -np.inf
        in_row, similar, best = best_places(scores, top_k)
        return SimilarRows(items[in_row], _ranks(in_row, len(items)), similar, best, is_shared[in_row, similar])


def best_places(scores: Floats, top_k: int) -> tuple[Longs, Longs, Floats]:
    """Return the places of the top_k greatest scores of each row, greatest first; of equal ones the lower place.

    scores: (rows, n) float32; -inf is never chosen. Returns rows, places (chosen,) int64 and their scores, rounded: the
    last bits of a product differ between processors, and with the shape of the matrices.
    """
    n_rows, n_scores = scores.shape
    # The greatest scores of some blocks of a row: their k-th is a lower bound of the row's, and is found much faster.
    tops = np.maximum.reduceat(scores, np.arange(0, n_scores, max(1, n_scores // (16 * top_k))), axis=1)
    first = max(0, tops.shape[1] - top_k)
    bounds = np.partition(tops, first, axis=1)[:, first, None]
    # Scores that round alike differ by a unit of the last digit, and by what float32 adds to that.
    rows, places = np.nonzero((scores >= bounds - np.float32(2 * 10**-_DECIMALS)) & (scores > -np.inf))
    rounded = scores[rows, places].round(_DECIMALS)
    order = np.lexsort((places, -rounded, rows))
    best = order[_ranks(rows, n_rows) <= top_k]
    return rows[best], places[best], rounded[best]


def _ranks(rows: Longs, n_rows: int) -> Ints:
    """Return the rank of each entry within its row, from 1: (entries,) int32; rows: ascending."""
    ranks: Ints = spans(np.ones(n_rows, np.int64), np.bincount(rows, minlength=n_rows)).astype(np.int32)
    return ranks


def unit_vectors(model: Model) -> Floats:
    """Return the embedding of each item less their mean, at length 1: (vocabulary, hidden size) float32.

    The mean is what all items have in common: Mu and Viswanath, "All-but-the-Top" (ICLR 2018).
    """
    embeddings = model.encoder_weights("--method vectors")["item_embeddings.weight"]
    vectors = embeddings - embeddings[FIRST_ITEM:].mean(axis=0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Floats = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return units
