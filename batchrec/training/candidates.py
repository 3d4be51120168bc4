"""Candidates: items that users may get, with the values of every signal, on which the weights of a blend are fitted."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from batchrec.arrays import Bools, Doubles, Floats, Longs
from batchrec.model.metrics import user_ndcg

K = 10


@dataclass(frozen=True)
class Candidates:
    """Items that users may get, user by user, with the value of every signal.

    values: (candidates, signals) float32. is_relevant: (candidates,) bool. counts: (candidates,) float32, the number of
    items for which a candidate counts. starts: (users,) int64, the place of each user's first candidate; no user is
    without one. n_relevant: (users,) int64, relevant items of each user, also those that are no candidates.
    """

    values: Floats
    is_relevant: Bools
    counts: Floats
    starts: Longs
    n_relevant: Longs

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return len(self.starts)

    @cached_property
    def users(self) -> Longs:
        """The user of each candidate: (candidates,)."""
        return np.repeat(np.arange(self.n_users), np.diff(self.starts, append=len(self.values)))

    @cached_property
    def ranks(self) -> Longs:
        """The ranks that `order` gives, user by user, each from 1: (candidates,)."""
        ranks: Longs = 1 + np.arange(len(self.values)) - self.starts[self.users]
        return ranks

    @cached_property
    def n_candidates_taken(self) -> Longs:
        """The relevant candidates of each user: (users,)."""
        taken: Longs = np.add.reduceat(self.is_relevant.astype(np.int64), self.starts)
        return taken

    def with_values(self, values: Floats) -> "Candidates":
        """Return the same candidates with other values: (candidates, signals)."""
        return replace(self, values=values)

    def of_users(self, is_kept: Bools) -> "Candidates":
        """Keep some users: is_kept (users,) bool."""
        of_kept = is_kept[self.users]
        lengths = np.bincount(self.users, minlength=self.n_users)[is_kept]
        return Candidates(
            self.values[of_kept],
            self.is_relevant[of_kept],
            self.counts[of_kept],
            np.cumsum(lengths) - lengths,
            self.n_relevant[is_kept],
        )

    def ndcg(self, weights: Doubles) -> Doubles:
        """Return NDCG@10 of each user by weighted signals: (users,). Equal scores rank the relevant item last."""
        order = self.order(weights)
        is_relevant = self.is_relevant[order]
        return user_ndcg(self.ranks[is_relevant], self.users[is_relevant], self.n_relevant, K)

    def order(self, weights: Doubles) -> Longs:
        """Sort the candidates by user, then by weighted signals, best first: (candidates,) places."""
        scores = self.values @ weights.astype(np.float32)
        return np.lexsort((self.is_relevant, -scores, self.users))
