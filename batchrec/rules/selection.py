"""A list out of a pool of items, under caps of categories, around pins, and of unlike items: arrays of many users."""

from collections.abc import Callable

import numpy as np

from batchrec.arrays import Bools, Ints, Longs
from batchrec.rules.diversity import choose_unlike
from batchrec.rules.pools import Pool, RecLists, Selection
from batchrec.tables.schemas import BY_PIN

_DEEPER = 4


def select(pool: Pool, selection: Selection) -> RecLists:
    """Choose each row's list: pins first, then the best others, all under the cap, in which the pins count.

    Pins stand at their places; where too few others are left, the list closes up.
    """
    pin_allowed = pool.pin_scores != -np.inf
    is_open = (pool.scores != -np.inf) & ~np.isin(pool.items, selection.pins)
    if selection.categories is not None:
        pins = np.broadcast_to(selection.pins, pin_allowed.shape)
        categories = selection.categories[np.concatenate([pins, pool.items], axis=1)]
        fits = _within_cap(categories, np.concatenate([pin_allowed, is_open], axis=1), selection.max_per_category)
        pin_allowed, best = fits[:, : len(selection.pins)], fits[:, len(selection.pins) :]
    else:
        best = is_open
    chosen = (
        _first(best, selection.top_k)
        if selection.directions is None
        else choose_unlike(pool, is_open, pin_allowed, selection)
    )
    return _lay_out(pool, chosen, pin_allowed, selection)


def deepen(
    pool_of: Callable[[Longs, int], Pool], n_rows: int, depths: tuple[int, int], selection: Selection
) -> RecLists:
    """Choose from pools of the least depth, and from deeper ones for rows that come short, until nothing is left.

    pool_of: gives the pools of some rows, of a depth; depths: the least and the most.
    """
    lists, rows, depth = RecLists.empty(n_rows, selection.top_k), np.arange(n_rows), depths[0]
    while len(rows):
        pool = pool_of(rows, depth)
        found = select(pool, selection)
        lists.put(rows, found)
        rows = rows[~found.is_item[:, -1] & ~pool.is_whole] if depth < depths[1] else rows[:0]
        depth = min(depths[1], depth * _DEEPER)
    return lists


def _within_cap(categories: Ints, is_open: Bools, most: int) -> Bools:
    """Tell which open items of a row are among the first `most` of their category: (rows, items) bool."""
    n_rows, n_items = categories.shape
    n_categories = int(categories.max(initial=0)) + 1
    counted = np.flatnonzero(is_open & (categories >= 0))
    keys = counted // max(1, n_items) * n_categories + categories.ravel()[counted]
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    numbers = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    fits = is_open.ravel().copy()
    fits[counted[order]] = numbers < most
    return fits.reshape(n_rows, n_items)


def _first(is_open: Bools, top_k: int) -> Longs:
    """Give the columns of each row's first open items: (rows, up to top_k) int64, -1 beyond the last."""
    order = np.argsort(~is_open, axis=1, kind="stable")[:, :top_k]
    return np.where(np.take_along_axis(is_open, order, axis=1), order, -1)


def _lay_out(pool: Pool, chosen: Longs, pin_allowed: Bools, selection: Selection) -> RecLists:
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
