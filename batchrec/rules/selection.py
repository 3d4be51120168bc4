"""Select each user's list from a pool of items: at most so many per category, around the pins, of unlike items."""

from collections.abc import Callable

import numpy as np

from batchrec.arrays import Bools, Longs
from batchrec.rules.diversity import choose_unlike
from batchrec.rules.max_per_category import within_maximum
from batchrec.rules.pools import Pool, RecLists, Selection
from batchrec.tables.schemas import BY_PIN

_DEEPER = 4


def select(pool: Pool, selection: Selection) -> RecLists:
    """Choose each row's list: pins first, then the best others, all within the category cap, in which the pins count.

    Pins are at their places; if there are too few others, the list closes up.
    """
    pin_allowed = pool.pin_scores != -np.inf
    is_open = (pool.scores != -np.inf) & ~np.isin(pool.items, selection.pins)
    best = is_open
    if selection.cap is not None:
        pins = np.broadcast_to(selection.pins, pin_allowed.shape)
        categories = selection.cap.categories[np.concatenate([pins, pool.items], axis=1)]
        both = np.concatenate([pin_allowed, is_open], axis=1)
        fits = within_maximum(categories, both, selection.cap.maximum)
        pin_allowed, best = fits[:, : len(selection.pins)], fits[:, len(selection.pins) :]
    if selection.unlikeness is None:
        chosen = _first(best, selection.top_k)
    else:
        chosen = choose_unlike(pool, is_open, pin_allowed, selection, selection.unlikeness)
    return _lay_out(pool, chosen, pin_allowed, selection)


def deepen(
    pool_of: Callable[[Longs, int], Pool], n_rows: int, depths: tuple[int, int], selection: Selection
) -> RecLists:
    """Choose from pools of the minimum depth, then from deeper ones for rows whose list is not full.

    pool_of: returns the pools of some rows, of a depth; depths: minimum and maximum.
    """
    lists, rows, depth = RecLists.empty(n_rows, selection.top_k), np.arange(n_rows), depths[0]
    while len(rows):
        pool = pool_of(rows, depth)
        selected = select(pool, selection)
        lists.put(rows, selected)
        rows = rows[~selected.is_item[:, -1] & ~pool.is_whole] if depth < depths[1] else rows[:0]
        depth = min(depths[1], depth * _DEEPER)
    return lists


def _first(is_open: Bools, top_k: int) -> Longs:
    """Return the columns of each row's first open items: (rows, up to top_k) int64, -1 after the last."""
    order = np.argsort(~is_open, axis=1, kind="stable")[:, :top_k]
    return np.where(np.take_along_axis(is_open, order, axis=1), order, -1)


def _lay_out(pool: Pool, chosen: Longs, pin_allowed: Bools, selection: Selection) -> RecLists:
    """Put the pins at their places, and the chosen columns of the pool at the places that are left."""
    lists = RecLists.empty(len(pin_allowed), selection.top_k)
    rows, pins = np.nonzero(pin_allowed)
    is_taken = np.zeros(lists.scores.shape, bool)
    is_taken[rows, selection.places[pins]] = True
    lists.scores[rows, selection.places[pins]] = pool.pin_scores[rows, pins]
    lists.items[rows, selection.places[pins]] = selection.pins[pins]
    lists.sources[rows, selection.places[pins]] = BY_PIN
    # Free places of each row first, in their order.
    free = np.argsort(is_taken, axis=1, kind="stable")
    n_free = selection.top_k - pin_allowed.sum(axis=1)
    rows, numbers = np.nonzero((chosen >= 0) & (np.arange(chosen.shape[1]) < n_free[:, None]))
    columns, places = chosen[rows, numbers], free[rows, numbers]
    lists.scores[rows, places] = pool.scores[rows, columns]
    lists.items[rows, places] = pool.items[rows, columns]
    lists.sources[rows, places] = pool.sources[rows, columns]
    return lists.take_along(np.argsort(~lists.is_item, axis=1, kind="stable"))
