"""The simple signals of a log that a blend may add to the encoder's scores: popularity and neighbours of items.

Popularity here answers: how many events does an item have in the last week, in the last month, and in all of the
training part?
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from batchrec.arrays import Floats, Ints, Longs
from batchrec.model.batching import Histories
from batchrec.model.blend import taken_items
from batchrec.tables.schemas import DAY_S, PAD

_RECENT_DAYS = (7, 30)
# Newest items per user that are paired, and best neighbours kept per item.
_PAIRED_ITEMS = 100
_NEIGHBOURS = 50
# Added to the denominator of the cosine, so that a pair that few users share counts little.
_SHRINKAGE = 3.0
_USERS_AT_A_TIME = 8192
# Pairs of items that are counted at a time: about 20 bytes each.
_PAIRS_AT_A_TIME = 1 << 24
_MAX_INDEX = np.uint64(2**32 - 1)


@dataclass(frozen=True)
class Signals:
    """The signals of a log.

    popularity: log(1 + events) per item, events by their weights, (vocabulary,) float32, by name. neighbours,
    similarities: as in Blend.
    """

    popularity: dict[str, Floats]
    neighbours: Ints
    similarities: Floats


def read_signals(histories: Histories, times: Longs, until: int, vocabulary_size: int) -> Signals:
    """Count the signals of histories.

    times: (events,) Unix seconds. until: the time before which events count; the newest of these ends the last days.
    """
    is_past = times < until
    end = int(times[is_past].max(initial=0))
    weights = np.ones(len(times)) if histories.weights is None else histories.weights
    counted = {"popular": np.bincount(histories.items, weights, vocabulary_size)}
    for days in _RECENT_DAYS:
        is_recent = is_past & (times > end - days * DAY_S)
        counted[f"popular_{days}_days"] = np.bincount(histories.items[is_recent], weights[is_recent], vocabulary_size)
    neighbours, similarities = count_neighbours(histories, vocabulary_size)
    popularity = {name: np.log1p(counts).astype(np.float32) for name, counts in counted.items()}
    return Signals(popularity, neighbours, similarities)


def count_neighbours(histories: Histories, vocabulary_size: int) -> tuple[Ints, Floats]:
    """Return the neighbours of each item, (vocabulary, n) int32, best first, and their similarities, float32.

    The similarity of two items is the number of users who have both, over the root of the product of their numbers of
    users, shrunk: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms" (WWW 2001). With
    weights, it is the cosine of the items' weights over the users, shrunk. Only the newest items of each user are
    paired, so that a few long histories do not make up most of the pairs.
    """
    users = _users_by_item(histories, vocabulary_size)
    items = users.T.tocsr()
    # Summed in float64: float32 cannot count beyond 2^24 users.
    roots = np.sqrt(users.power(2) @ np.ones(users.shape[1])).astype(np.float32)
    n_neighbours = min(_NEIGHBOURS, vocabulary_size)
    neighbours = np.full((vocabulary_size, n_neighbours), PAD, np.int32)
    similarities = np.zeros((vocabulary_size, n_neighbours), np.float32)
    for block in _blocks(users.astype(bool) @ np.diff(items.indptr).astype(np.int64)):
        shared = users[block] @ items
        rows = np.repeat(np.arange(block.start, block.stop), np.diff(shared.indptr))
        cosines = (shared.data / (roots[rows] * roots[shared.indices] + _SHRINKAGE)).astype(np.float32)
        cosines[rows == shared.indices] = 0
        # The bits of positive floats are in their order. Below them, the lower index is the greater number.
        keys = cosines.view(np.uint32).astype(np.uint64) << np.uint64(32) | (
            _MAX_INDEX - shared.indices.astype(np.uint64)
        )
        best = _best_of_rows(keys, shared.indptr, n_neighbours)
        of_best = rows[best]
        places = np.arange(len(best)) - np.searchsorted(of_best, of_best)
        neighbours[of_best, places] = _MAX_INDEX - (keys[best] & _MAX_INDEX)
        similarities[of_best, places] = (keys[best] >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return neighbours, similarities


def _best_of_rows(keys: NDArray[np.uint64], starts: Ints, n: int) -> Longs:
    """Return the places of the n greatest keys of each row, row by row, greatest first; none of similarity 0.

    keys: of all rows, no two of a row alike. starts: (rows + 1,), where each row starts, and the last one ends.
    """
    is_kept = keys > _MAX_INDEX
    lengths = np.diff(starts)
    # Only long rows are looked at one by one: of millions of items most have few neighbours.
    for row in np.flatnonzero(lengths > n):
        own = slice(starts[row], starts[row + 1])
        is_kept[own] &= keys[own] >= np.partition(keys[own], lengths[row] - n)[lengths[row] - n]
    kept = np.flatnonzero(is_kept)
    rows = np.repeat(np.arange(len(lengths)), lengths)[kept]
    best: Longs = kept[np.lexsort((~keys[kept], rows))]
    return best


def _blocks(n_pairs: Longs) -> Iterator[slice]:
    """Split items into blocks of at most _PAIRS_AT_A_TIME pairs, and at least one item; n_pairs: (items,)."""
    ends = np.cumsum(n_pairs)
    start = 0
    while start < len(n_pairs):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_A_TIME, side="right")))
        yield slice(start, end)
        start = end


def _users_by_item(histories: Histories, vocabulary_size: int) -> csr_matrix:
    """Return the matrix (vocabulary, users) float32 of the weights of the newest items of each user.

    Weights are divided by the mean of all events.
    """
    rows, items, weights = [], [], []
    histories = replace(histories, weights=histories.relative_weights)
    for first in range(0, len(histories), _USERS_AT_A_TIME):
        users = np.arange(first, min(first + _USERS_AT_A_TIME, len(histories)))
        taken = taken_items(histories, users)
        is_paired = taken.places < _PAIRED_ITEMS
        rows.append(users[taken.rows[is_paired]])
        items.append(taken.items[is_paired])
        weights.append(taken.weights[is_paired])
    places = np.concatenate(items), np.concatenate(rows)
    return csr_matrix((np.concatenate(weights), places), shape=(vocabulary_size, len(histories)))
