"""Which rule left users without a list."""

from collections import Counter

import numpy as np

from batchrec.arrays import Bools, Longs
from batchrec.model.batching import SeenPairs
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.user_limits import UserLimits
from batchrec.tables.schemas import FIRST_ITEM


def emptied_by(rules: CompiledRules, limits: UserLimits, users: Longs) -> Counter[str]:
    """Count users without a list by the first rule that left them nothing, as its option.

    Users who have seen every item are not counted. users: their rows of the limits.
    """
    if len(users) == 0:
        return Counter()
    everything = np.ones((1, len(rules.is_allowed)), bool)
    everything[:, :FIRST_ITEM] = False
    is_allowed, is_eligible = rules.is_allowed[None], rules.is_eligible[None]
    if rules.by_segment is not None:
        is_allowed, is_eligible = rules.by_segment.is_allowed, rules.by_segment.is_eligible
    rows = limits.segments_of(users)
    seen, excluded = UserLimits(limits.seen).excluded(users), limits.excluded(users)
    n_left = {
        "": _n_left(everything, np.zeros_like(rows), seen),
        "--allow": _n_left(everything & is_allowed, rows, seen),
        "--block": _n_left(is_eligible, rows, seen),
        "--block-for-user": _n_left(is_eligible, rows, excluded),
        "--candidates": np.zeros(len(users), np.int64),
    }
    first = (np.array(list(n_left.values())) == 0).argmax(axis=0)
    n_users_of = np.bincount(first, minlength=len(n_left)).tolist()
    return Counter({option: n for option, n in zip(n_left, n_users_of, strict=True) if option and n})


def _n_left(is_open: Bools, rows: Longs, excluded: SeenPairs) -> Longs:
    """Count the items that are left to each user.

    is_open: (n, size) bool; rows: (users,), each user's row of it; excluded: pairs of a place in rows and an item.
    """
    size = is_open.shape[1]
    pairs = np.unique(excluded.rows * size + excluded.items)
    users, items = pairs // size, pairs % size
    n_excluded = np.bincount(users[is_open[rows[users], items]], minlength=len(rows))
    n_left: Longs = is_open.sum(axis=1)[rows] - n_excluded
    return n_left
