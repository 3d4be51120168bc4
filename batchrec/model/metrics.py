"""Ranking metrics over the full catalogue, from the rank of each user's one held-out item.

Definitions as in Petrov & Macdonald, "A Systematic Review and Replicability Study of BERT4Rec" (RecSys 2022).
"""

import numpy as np
from numpy.typing import NDArray


def hit_rate(ranks: NDArray[np.int64], k: int) -> float:
    """Return the share of users whose held-out item is among the first k. ranks: (users,) from 1."""
    return float(np.mean(ranks <= k))


def ndcg(ranks: NDArray[np.int64], k: int) -> float:
    """Return NDCG with one relevant item: the mean of 1 / log2(rank + 1), 0 beyond k. ranks: (users,) from 1."""
    return float(np.mean(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)))
