"""The simple signals of a log that a blend may add to the encoder's scores: popularity and neighbours of items.

Popularity here answers: how many events does an item have in the last week, in the last month, and in all of the
training part?
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from batchrec.arrays import Floats, Ints, Longs
from batchrec.model.batching import Histories
from batchrec.model.blend import taken_items
from batchrec.tables.schemas import PAD

_DAY_S = 86_400
_RECENT_DAYS = (7, 30)
# Newest items per user that are paired, and best neighbours kept per item.
_PAIRED_ITEMS = 100
_NEIGHBOURS = 50
# Added to the denominator of the cosine, so that a pair that few users share counts little.
_SHRINKAGE = 3.0
_USERS_AT_A_TIME = 8192
_ITEMS_AT_A_TIME = 2048


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
        is_recent = is_past & (times > end - days * _DAY_S)
        counted[f"popular_{days}_days"] = np.bincount(histories.items[is_recent], weights[is_recent], vocabulary_size)
    neighbours, similarities = count_neighbours(histories, vocabulary_size)
    popularity = {name: np.log1p(counts).astype(np.float32) for name, counts in counted.items()}
    return Signals(popularity, neighbours, similarities)


def count_neighbours(histories: Histories, vocabulary_size: int) -> tuple[Ints, Floats]:
    """Return the neighbours of each item, (vocabulary, n) int32, best first, and their similarities, float32.

    The similarity of two items is the number of users who have both, over the root of the product of their numbers of
    users, shrunk: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms" (WWW 2001). Only the
    newest items of each user are paired, so that a few long histories do not make up most of the pairs.
    """
    users = _users_by_item(histories, vocabulary_size)
    roots = np.sqrt(np.diff(users.indptr)).astype(np.float32)
    items = users.T.tocsr()
    n_neighbours = min(_NEIGHBOURS, vocabulary_size)
    neighbours = np.full((vocabulary_size, n_neighbours), PAD, np.int32)
    similarities = np.zeros((vocabulary_size, n_neighbours), np.float32)
    for first in range(0, vocabulary_size, _ITEMS_AT_A_TIME):
        shared = (users[first : first + _ITEMS_AT_A_TIME] @ items).tocoo()
        rows, others = shared.row + first, shared.col
        is_other = rows != others
        rows, others, n_shared = rows[is_other], others[is_other], shared.data[is_other]
        cosines = n_shared / (roots[rows] * roots[others] + _SHRINKAGE)
        order = np.lexsort((others, -cosines, rows))
        rows = rows[order]
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)
        is_kept = places < n_neighbours
        neighbours[rows[is_kept], places[is_kept]] = others[order][is_kept]
        similarities[rows[is_kept], places[is_kept]] = cosines[order][is_kept]
    return neighbours, similarities


def _users_by_item(histories: Histories, vocabulary_size: int) -> csr_matrix:
    """Return the matrix (vocabulary, users) float32 that is 1 where the newest items of a user have the item."""
    rows, items = [], []
    for first in range(0, len(histories), _USERS_AT_A_TIME):
        users = np.arange(first, min(first + _USERS_AT_A_TIME, len(histories)))
        taken = taken_items(histories, users)
        is_paired = taken.places < _PAIRED_ITEMS
        rows.append(users[taken.rows[is_paired]])
        items.append(taken.items[is_paired])
    places = np.concatenate(items), np.concatenate(rows)
    return csr_matrix((np.ones(len(places[0]), np.float32), places), shape=(vocabulary_size, len(histories)))
