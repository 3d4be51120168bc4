"""Which rule left users nothing."""

from collections import Counter

import numpy as np

from batchrec.batching import Longs, SeenPairs
from batchrec.rules.ruled_ranker import Limits
from batchrec.rules.rules import Bools, Rules
from batchrec.schemas import FIRST_ITEM


def emptied_by(rules: Rules, limits: Limits, n_users: int) -> Counter[str]:
    """Count users without a list by the first rule that left them nothing; not who has seen everything.

    limits: of those users.
    """
    users = np.arange(n_users)
    everything = np.ones(len(rules.is_allowed), bool)
    everything[:FIRST_ITEM] = False
    seen = Limits(limits.seen, None, None).excluded(users)
    steps = {
        "": _n_left(everything, seen, n_users),
        "--allow": _n_left(everything & rules.is_allowed, seen, n_users),
        "--block": _n_left(rules.is_eligible, seen, n_users),
        "--block-for-user": _n_left(rules.is_eligible, limits.excluded(users), n_users),
        "--candidates": np.zeros(n_users, np.int64),
    }
    first = (np.array(list(steps.values())) == 0).argmax(axis=0)
    n_users_of = np.bincount(first, minlength=len(steps)).tolist()
    return Counter({name: n for name, n in zip(steps, n_users_of, strict=True) if name and n})


def _n_left(is_open: Bools, gone: SeenPairs, n_users: int) -> Longs:
    pairs = np.unique(gone.rows * len(is_open) + gone.items)
    pairs = pairs[is_open[pairs % len(is_open)]]
    n_left: Longs = is_open.sum() - np.bincount(pairs // len(is_open), minlength=n_users)
    return n_left
