"""Which rule left users nothing."""

from collections import Counter

import numpy as np

from batchrec.arrays import Bools, Longs
from batchrec.model.batching import SeenPairs
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.user_limits import UserLimits
from batchrec.tables.schemas import FIRST_ITEM


def emptied_by(rules: CompiledRules, limits: UserLimits, n_users: int) -> Counter[str]:
    """Count users without a list by the first rule that left them nothing; not who has seen everything.

    limits: of those users.
    """
    users = np.arange(n_users)
    everything = np.ones((1, len(rules.is_allowed)), bool)
    everything[:, :FIRST_ITEM] = False
    is_allowed, is_eligible = rules.is_allowed[None], rules.is_eligible[None]
    if rules.by_segment is not None:
        is_allowed, is_eligible = rules.by_segment.is_allowed, rules.by_segment.is_eligible
    rows = limits.segments_of(users)
    seen, gone = UserLimits(limits.seen).excluded(users), limits.excluded(users)
    steps = {
        "": _n_left(everything, np.zeros_like(rows), seen),
        "--allow": _n_left(everything & is_allowed, rows, seen),
        "--block": _n_left(is_eligible, rows, seen),
        "--block-for-user": _n_left(is_eligible, rows, gone),
        "--candidates": np.zeros(n_users, np.int64),
    }
    first = (np.array(list(steps.values())) == 0).argmax(axis=0)
    n_users_of = np.bincount(first, minlength=len(steps)).tolist()
    return Counter({name: n for name, n in zip(steps, n_users_of, strict=True) if name and n})


def _n_left(is_open: Bools, rows: Longs, gone: SeenPairs) -> Longs:
    """Count what is left to users; is_open: (n, size) bool; rows: (users,), which of these holds for each."""
    size = is_open.shape[1]
    pairs = np.unique(gone.rows * size + gone.items)
    users, items = pairs // size, pairs % size
    n_gone = np.bincount(users[is_open[rows[users], items]], minlength=len(rows))
    n_left: Longs = is_open.sum(axis=1)[rows] - n_gone
    return n_left
