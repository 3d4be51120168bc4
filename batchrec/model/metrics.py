"""Ranking metrics over the full catalogue, from the ranks of held-out items.

Definitions as in Petrov & Macdonald, "A Systematic Review and Replicability Study of BERT4Rec" (RecSys 2022).
"""

import numpy as np
from numpy.typing import NDArray

from batchrec.arrays import Doubles, Longs


def hit_rate(ranks: NDArray[np.int64], k: int) -> float:
    """Return the share of users whose held-out item is among the first k. ranks: (users,) from 1."""
    return float(np.mean(ranks <= k))


def ndcg(ranks: NDArray[np.int64], k: int) -> float:
    """Return NDCG with one relevant item: the mean of 1 / log2(rank + 1), 0 beyond k. ranks: (users,) from 1."""
    return float(np.mean(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)))


def user_ndcg(ranks: Longs, users: Longs, n_relevant: Longs, k: int) -> Doubles:
    """Return NDCG of each user, (users,): the gain of the relevant items over that of a list that begins with them.

    ranks, users: (relevant items,) the rank, from 1, and the user of each; n_relevant: (users,), 1 or more.
    """
    gains = np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)
    per_user: Doubles = np.bincount(users, gains, len(n_relevant)) / ideal_gains(n_relevant, k)
    return per_user


def decimals(metric: float) -> str:
    """Format a metric from 0 to 1 without a leading zero: .1234, 1.0000."""
    return f"{metric:.4f}".removeprefix("0")


def ideal_gains(n_relevant: Longs, k: int) -> Doubles:
    """Return the gain of a list that begins with all relevant items: (users,). n_relevant: (users,), 1 or more."""
    gains: Doubles = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(n_relevant, k) - 1]
    return gains
