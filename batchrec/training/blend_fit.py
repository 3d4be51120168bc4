"""Fit the weights of a blend on held-out items: a convex fit, and the elimination of signals that do not help.

The weights maximise the likelihood of the held-out items under a softmax over the items that a user may get, as the
encoder's own training does. Signals that this likelihood likes but that harm the top of the list are then left out, one
by one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchrec.arrays import Bools, Doubles, Floats, Longs
from batchrec.model.metrics import user_ndcg

_K = 10
_PENALTY = 1e-2
_MAX_ITERATIONS = 25
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Candidates:
    """Items that users may get, user by user, with the value of every signal.

    values: (candidates, signals) float32. is_relevant: (candidates,) bool. log_counts: (candidates,) float32, the log
    of the number of items that a candidate stands for. starts: (users,) int64, where each user's candidates begin;
    every user has some. n_relevant: (users,) int64, relevant items of each user, also those that are no candidates.
    """

    values: Floats
    is_relevant: Bools
    log_counts: Floats
    starts: Longs
    n_relevant: Longs

    @property
    def users(self) -> Longs:
        """The user of each candidate: (candidates,)."""
        return np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(self.values)))


def fit_weights(candidates: Candidates, names: list[str]) -> dict[str, float]:
    """Return the weight of each signal, by name; 0 for a signal that does not help.

    A signal is left out if NDCG@10 rises by more than a standard error without it.
    """
    scales = candidates.values.std(axis=0, dtype=np.float64) + 1e-9
    scaled = (candidates.values / scales).astype(np.float32)
    kept = list(range(len(names)))
    weights = _maximise_likelihood(candidates, scaled, np.ones(len(kept)))
    accuracy = ndcg_of(candidates, scaled @ weights.astype(np.float32))
    while len(kept) > 1:
        trials = []
        for place in range(len(kept)):
            columns = kept[:place] + kept[place + 1 :]
            start = np.delete(weights, place)
            trial = _maximise_likelihood(candidates, scaled[:, columns], start)
            trials.append((columns, trial, ndcg_of(candidates, scaled[:, columns] @ trial.astype(np.float32))))
        columns, trial, without = max(trials, key=lambda tried: tried[2].mean())
        gain = without - accuracy
        if gain.mean() <= gain.std() / np.sqrt(len(gain)):
            break
        kept, weights, accuracy = columns, trial, without
    fitted = dict.fromkeys(names, 0.0)
    for column, weight in zip(kept, weights, strict=True):
        fitted[names[column]] = float(weight / scales[column])
    return fitted


def ndcg_of(candidates: Candidates, scores: Floats) -> Doubles:
    """Return NDCG@10 of each user's candidates by their scores: (users,). Equal scores rank the relevant item last."""
    users = candidates.users
    order = np.lexsort((candidates.is_relevant, -scores, users))
    ranks = 1 + np.arange(len(order)) - candidates.starts[users]
    is_relevant = candidates.is_relevant[order]
    return user_ndcg(ranks[is_relevant], users[is_relevant], candidates.n_relevant, _K)


def _maximise_likelihood(candidates: Candidates, values: Floats, weights: Doubles) -> Doubles:
    """Maximise the mean log-likelihood of the users' relevant items by Newton's method, from some weights.

    A small quadratic penalty keeps the weights finite; values: (candidates, signals) of unit variance.
    """
    weights = weights.astype(np.float64)
    target = _shares_of_relevant(candidates)
    loss, gradient, curvature = _likelihood(candidates, values, target, weights)
    for _ in range(_MAX_ITERATIONS):
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while True:
            moved = weights - length * step
            new_loss, new_gradient, new_curvature = _likelihood(candidates, values, target, moved)
            if new_loss <= loss or length < _TOLERANCE:
                break
            length /= 2
        improvement = loss - new_loss
        if improvement > 0:
            weights, loss, gradient, curvature = moved, new_loss, new_gradient, new_curvature
        if improvement <= _TOLERANCE:
            break
    return weights


def _shares_of_relevant(candidates: Candidates) -> Floats:
    """Return each candidate's share of its user's relevant candidates, 0 if it is not one: (candidates,)."""
    n_relevant = np.add.reduceat(candidates.is_relevant.astype(np.float32), candidates.starts)
    return (candidates.is_relevant / np.maximum(n_relevant, 1)[candidates.users]).astype(np.float32)


def _likelihood(
    candidates: Candidates, values: Floats, target: Floats, weights: Doubles
) -> tuple[float, Doubles, NDArray[np.float64]]:
    """Return the negative log-likelihood per user with its penalty, its gradient and its Hessian."""
    starts, users = candidates.starts, candidates.users
    scores = values @ weights.astype(np.float32) + candidates.log_counts
    exponents = np.exp(scores - np.maximum.reduceat(scores, starts)[users])
    sums = np.add.reduceat(exponents, starts)
    shares = exponents / sums[users]
    has_relevant = np.add.reduceat(target, starts) > 0
    n_users = max(1, int(has_relevant.sum()))
    shares *= has_relevant[users]
    log_shares = np.log(np.maximum(shares, np.finfo(np.float32).tiny))
    loss = -float(target @ log_shares) / n_users + _PENALTY * float(weights @ weights)
    gradient = ((shares - target) @ values) / n_users + 2 * _PENALTY * weights
    means = np.add.reduceat(shares[:, None] * values, starts)
    curvature = (values.T @ (shares[:, None] * values) - means.T @ means) / n_users
    return loss, gradient, curvature.astype(np.float64) + 2 * _PENALTY * np.eye(len(weights))
