"""Why an item is in a list: the part of the blend that carried it, and the items of the history behind it."""

from dataclasses import dataclass

import numpy as np

from batchrec.arrays import Codes, Floats, Ints
from batchrec.model.blend import Blend, ScoredPairs
from batchrec.model.parts import weight_views
from batchrec.tables.schemas import FIRST_ITEM, MASK, NOT_CARRIED, PAD, PARTS

# History items named per row.
N_BECAUSE = 3
# Weights are rounded, because their last bits depend on which histories are in one batch.
_DECIMALS = 3
# An event counts e to the power of this times its cosine to the item, over the root of its rank from the newest: chosen
# by leaving events out of histories (docs/decisions/explain.md).
_SHARPNESS = np.float32(4)
# Numbers in an array at a time, so that it fits the cache of a core.
_NUMBERS = 1 << 20
_ENCODER, _NEIGHBOURS, _POPULARITY, _HABIT = range(len(PARTS))


@dataclass(frozen=True)
class Reasons:
    """Why the items of lists are in them.

    carried_by: (rows, k) int8, indexes of PARTS, NOT_CARRIED where no part did. items: (rows, k, N_BECAUSE) int32
    indexes of history items, the strongest first, PAD after the last. weights: of the same shape, float32, the share of
    each in what all items of the history add, 0 after the last.
    """

    carried_by: Codes
    items: Ints
    weights: Floats

    @classmethod
    def empty(cls, n_rows: int, top_k: int) -> "Reasons":
        """Return reasons for lists that no part carried."""
        carried_by, shape = np.full((n_rows, top_k), NOT_CARRIED, np.int8), (n_rows, top_k, N_BECAUSE)
        return cls(carried_by, np.full(shape, PAD, np.int32), np.zeros(shape, np.float32))

    def put(self, rows: object, reasons: "Reasons") -> None:
        """Set some rows; rows: an index of numpy."""
        for name, values in vars(reasons).items():
            getattr(self, name)[rows] = values


class Explainer:
    """Finds the reasons of a model's lists on the host; `explain` may be called by several threads at the same time.

    The contribution of a part to an item is what it adds to the score, less the mean of what it adds to the items of
    the catalogue. The part with the largest contribution carried the item; of equal ones, the first in PARTS.
    """

    def __init__(self, weights: bytes, blend: Blend | None) -> None:
        """Read the embeddings and biases of items; weights: the safetensors of a model."""
        arrays = weight_views(weights)
        self._embeddings: Floats = arrays["item_embeddings.weight"]
        self._mean = self._embeddings[FIRST_ITEM:].mean(axis=0)
        lengths = np.linalg.norm(self._embeddings, axis=1)
        self._per_length = (1 / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        self._scale = np.float32(1) if blend is None else blend.scale[0]
        self._biases = self._scale * _less_mean(arrays["item_biases"])
        self._popularity = np.zeros_like(self._biases) if blend is None else _less_mean(blend.biases) - self._biases
        self._neighbours = None if blend is None or not blend.has_neighbours else blend
        # Of a popularity without weight, rounding leaves traces.
        has_popularity = np.abs(self._popularity).max() > 1e-5 * np.abs(self._biases).max()
        self._is_absent = np.array([not self._scale, False, not has_popularity, False])

    def explain(self, tokens: Ints, states: Floats, items: Ints, habits: ScoredPairs) -> Reasons:
        """Return why each row has its items.

        tokens, habits: as for Ranker.rank. states: (rows, hidden_size) float32, of the same rows. items: (rows, k)
        int32 indexes; no part carries one that the model does not know.
        """
        reasons = Reasons.empty(*items.shape)
        habit, newest = self._habit(items, habits), _newest_first(tokens)
        width = newest.shape[1] * len(self._mean)
        if self._neighbours is not None:
            width = max(width, self._neighbours.recency.size * self._neighbours.neighbours.shape[1])
        step = max(1, _NUMBERS // width)
        for first in range(0, len(tokens), step):
            rows = slice(first, first + step)
            reasons.put(rows, self._explain(newest[rows], states[rows], items[rows], habit[rows]))
        return reasons

    def _explain(self, newest: Ints, states: Floats, items: Ints, habit: Floats) -> Reasons:
        is_item = (items >= FIRST_ITEM) & (items < len(self._embeddings))
        items = np.where(is_item, items, PAD)
        by_neighbours = self._by_neighbours(newest, items)
        parts = np.stack([self._encoder(states, items), by_neighbours.sum(axis=2), self._popularity[items], habit])
        # Items that neighbours or habit do not touch are not carried by them, whatever the other parts say.
        parts[[_NEIGHBOURS, _HABIT]] = np.where(parts[[_NEIGHBOURS, _HABIT]] > 0, parts[[_NEIGHBOURS, _HABIT]], -np.inf)
        parts[self._is_absent] = -np.inf
        is_carried = is_item & (parts.max(axis=0) > -np.inf)
        carried_by = np.where(is_carried, parts.argmax(axis=0), NOT_CARRIED).astype(np.int8)
        behind = self._alike(newest, items) * (carried_by == _ENCODER)[:, :, None]
        is_by_neighbours = carried_by == _NEIGHBOURS
        behind[:, :, : by_neighbours.shape[2]][is_by_neighbours] = by_neighbours[is_by_neighbours].clip(min=0)
        reasons = _strongest(_add_repeats(behind, newest), newest, carried_by)
        is_habit = carried_by == _HABIT
        reasons.items[is_habit, 0], reasons.weights[is_habit, 0] = items[is_habit], 1
        return reasons

    def _encoder(self, states: Floats, items: Ints) -> Floats:
        """Return the contributions of the encoder: (rows, k)."""
        products = np.matmul(self._embeddings[items], states[:, :, None])[:, :, 0] - (states @ self._mean)[:, None]
        contributions: Floats = self._scale * products + self._biases[items]
        return contributions

    def _by_neighbours(self, newest: Ints, items: Ints) -> Floats:
        """Return what each of the newest events adds to its neighbours among the items: (rows, k, events)."""
        blend = self._neighbours
        if blend is None:
            return np.zeros((*items.shape, 0), np.float32)
        newest = newest[:, : len(blend.recency)]
        neighbours = blend.neighbours[newest]
        similarities = blend.similarities[newest] * blend.recency[: newest.shape[1], None]
        added = np.zeros((items.shape[1], newest.size), np.float32)
        for place in range(items.shape[1]):
            # The neighbours of a row are filled up with PAD.
            wanted = np.where(items[:, place] == PAD, -1, items[:, place])
            same = np.flatnonzero(neighbours == wanted[:, None, None])
            np.add.at(added[place], same // neighbours.shape[2], similarities.ravel()[same])
        return added.reshape(-1, *newest.shape).transpose(1, 0, 2)

    def _alike(self, newest: Ints, items: Ints) -> Floats:
        """Return how much each event is like the items, less for older events: (rows, k, events), 0 for PAD."""
        products = np.matmul(self._embeddings[items], self._embeddings[newest].transpose(0, 2, 1))
        cosines = products * self._per_length[items][:, :, None] * self._per_length[newest][:, None, :]
        ranks = np.arange(1, newest.shape[1] + 1, dtype=np.float32)
        alike: Floats = np.exp(_SHARPNESS * cosines) * ((newest != PAD) / np.sqrt(ranks)).astype(np.float32)[:, None, :]
        return alike

    def _habit(self, items: Ints, habits: ScoredPairs) -> Floats:
        """Return what habit adds to the items: (rows, k)."""
        if len(habits.rows) == 0:
            return np.zeros(items.shape, np.float32)
        # Pairs are ordered by row and item.
        size = len(self._embeddings)
        keys = habits.rows * size + habits.items
        wanted = np.arange(len(items))[:, None] * size + np.where(items < size, items, PAD)
        places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where(keys[places] == wanted, habits.scores[places], np.float32(0))


def _less_mean(biases: Floats) -> Floats:
    """Return the biases of items less their mean, and 0 for PAD and MASK."""
    centred = np.zeros_like(biases)
    centred[FIRST_ITEM:] = biases[FIRST_ITEM:] - biases[FIRST_ITEM:].mean(dtype=np.float64)
    return centred


def _newest_first(tokens: Ints) -> Ints:
    """Return the items of each row of tokens, the newest first, PAD after the oldest: (rows, length)."""
    places = (tokens > MASK).sum(axis=1, keepdims=True) - 1 - np.arange(tokens.shape[1])
    return np.where(places >= 0, np.take_along_axis(tokens, places.clip(min=0), axis=1), np.int32(PAD))


def _add_repeats(behind: Floats, newest: Ints) -> Floats:
    """Add what the events of an item are behind to its newest event; behind: (rows, k, events)."""
    order = np.argsort(newest, axis=1, kind="stable")
    ordered = np.take_along_axis(newest, order, axis=1)
    is_first = np.diff(ordered, axis=1, prepend=-1) != 0
    if (is_first | (ordered == PAD)).all():
        return behind
    firsts = np.maximum.accumulate(np.where(is_first, np.arange(newest.shape[1]), 0), axis=1)
    owners = np.empty_like(order)
    np.put_along_axis(owners, order, np.take_along_axis(order, firsts, axis=1), axis=1)
    added = np.zeros_like(behind)
    n_rows, top_k, _ = behind.shape
    np.add.at(added, (np.arange(n_rows)[:, None, None], np.arange(top_k)[:, None], owners[:, None]), behind)
    return added


def _strongest(behind: Floats, newest: Ints, carried_by: Codes) -> Reasons:
    """Name the events that add most, of equal ones the newest; behind: (rows, k, events), which is overwritten."""
    reasons = Reasons.empty(*carried_by.shape)
    total = behind.sum(axis=2)
    for place in range(min(N_BECAUSE, behind.shape[2])):
        best = behind.argmax(axis=2)[:, :, None]
        shares = np.take_along_axis(behind, best, axis=2)[:, :, 0] / np.where(total > 0, total, 1)
        reasons.weights[:, :, place] = shares.round(_DECIMALS)
        reasons.items[:, :, place] = np.take_along_axis(newest, best[:, :, 0], axis=1)
        np.put_along_axis(behind, best, 0, axis=2)
    reasons.items[reasons.weights == 0] = PAD
    return Reasons(carried_by, reasons.items, reasons.weights)
