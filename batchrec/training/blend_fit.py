"""Fit the weights of a blend on held-out items.

The weights are those of a logistic regression: is the item one that the user takes later? Each user has an intercept,
and all users weigh the same. If that helps users of another fold, they are moved towards NDCG@10 itself
(top_of_list.py). Signals that harm the top of the list with weights fitted in this way are left out, one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from batchrec.arrays import Doubles, Floats
from batchrec.training.candidates import Candidates
from batchrec.training.top_of_list import raise_ndcg

_PENALTY = 1e-2
_MAX_ITERATIONS = 50
_TOLERANCE = 1e-7
# One halving of a hundred users can say anything.
_HALVINGS = 4


@dataclass(frozen=True)
class FittedWeights:
    """The weight of each signal by its name, 0 for one that does not help.

    gains: how much lower NDCG@10 is on the users of the fit without the signal, after the others are fitted again.
    shares: the share of these users' top 10 that each part carries (shares.py).
    """

    weights: dict[str, float]
    gains: dict[str, float]
    shares: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{name} {weight:.3g} ({self.gains[name]:+.4f})" for name, weight in self.weights.items())


def fit_weights(candidates: Candidates, names: list[str]) -> FittedWeights:
    """Fit the weights of signals with these names."""
    spreads = candidates.values.std(axis=0, dtype=np.float64)
    # A signal that is the same for all candidates, but for its rounding, is not blown up: it has nothing to tell.
    scales = np.where(spreads > 1e-6 * np.abs(candidates.values).max(axis=0), spreads + 1e-9, 1)
    scaled = candidates.with_values((candidates.values / scales).astype(np.float32))
    kept, moved, gains = _eliminate(scaled, _fit_top if _helps_other_users(scaled) else _maximise_likelihood)
    weights = moved * _scale(scaled.with_values(scaled.values[:, kept]), moved)
    fitted = FittedWeights(dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0))
    for column, weight, gain in zip(kept, weights, gains, strict=True):
        fitted.weights[names[column]] = float(weight / scales[column])
        fitted.gains[names[column]] = float(gain)
    return fitted


def _eliminate(candidates: Candidates, fit: Callable[[Candidates], Doubles]) -> tuple[list[int], Doubles, list[float]]:
    """Return the signals, of unit variance, that help, their weights by `fit`, and how much NDCG@10 gains by each.

    A signal is left out if NDCG@10 rises by more than a standard error without it.
    """
    values = candidates.values
    kept = list(range(values.shape[1]))
    weights = fit(candidates)
    accuracy = candidates.ndcg(weights)
    gains = [float(accuracy.mean())]
    while len(kept) > 1:
        trials = []
        for place in range(len(kept)):
            columns = kept[:place] + kept[place + 1 :]
            part = candidates.with_values(values[:, columns])
            trial = fit(part)
            trials.append((columns, trial, part.ndcg(trial)))
        gains = [float((accuracy - without).mean()) for _, _, without in trials]
        columns, trial, without = max(trials, key=lambda tried: tried[2].mean())
        if not _is_above_error(without - accuracy):
            break
        kept, weights, accuracy = columns, trial, without
        gains = [float(accuracy.mean())]
    return kept, weights, gains


def _helps_other_users(candidates: Candidates) -> bool:
    """Return whether raising NDCG@10 of half of the users raises that of the others by more than a standard error."""
    n_users = candidates.n_users
    if n_users < 2:
        return False
    gains = np.zeros(n_users)
    for halving in range(_HALVINGS):
        is_first = np.random.default_rng(halving).permutation(n_users) % 2 == 0
        for is_other in (is_first, ~is_first):
            fitted_on, others = candidates.of_users(~is_other), candidates.of_users(is_other)
            weights = _maximise_likelihood(fitted_on)
            gains[is_other] += others.ndcg(raise_ndcg(fitted_on, weights)) - others.ndcg(weights)
    return _is_above_error(gains / _HALVINGS)


def _fit_top(candidates: Candidates) -> Doubles:
    """Move the weights of the likelihood towards NDCG@10."""
    return raise_ndcg(candidates, _maximise_likelihood(candidates))


def _is_above_error(gains: Doubles) -> bool:
    """Return whether the mean of the users' gains is more than its standard error."""
    return bool(gains.mean() > gains.std() / np.sqrt(len(gains)))


def _scale(candidates: Candidates, weights: Doubles) -> float:
    """Return the factor by which weighted signals are log-odds again: NDCG@10 does not depend on it, boosts do."""
    blended = (candidates.values @ weights)[:, None].astype(np.float32)
    factor = float(_maximise_likelihood(candidates.with_values(blended))[0])
    return factor if factor > 0 else 1.0


def _maximise_likelihood(candidates: Candidates) -> Doubles:
    """Maximise the users' mean log-likelihood by Newton's method over the weights and the intercepts.

    A small quadratic penalty keeps the weights finite.
    """
    weights = np.zeros(candidates.values.shape[1])
    n_taken = candidates.n_candidates_taken
    n_others = np.add.reduceat(candidates.counts, candidates.starts) - n_taken
    # The best intercepts if nothing else is known. Newton's steps from far away would be too long.
    intercepts = np.log((n_taken + 0.5) / (n_others + 0.5))
    importance = candidates.counts / (np.maximum(n_taken, 1) * candidates.n_users)[candidates.users]
    loss, shares = _loss(candidates, importance, weights, intercepts)
    for _ in range(_MAX_ITERATIONS):
        step, intercept_step = _newton_step(candidates, importance, shares, weights)
        length = 1.0
        while True:
            moved = weights - length * step, intercepts - length * intercept_step
            new_loss, new_shares = _loss(candidates, importance, *moved)
            if new_loss <= loss or length < _TOLERANCE:
                break
            length /= 2
        improvement = loss - new_loss
        if improvement > 0:
            (weights, intercepts), loss, shares = moved, new_loss, new_shares
        if improvement <= _TOLERANCE:
            break
    return weights


def _loss(candidates: Candidates, importance: Floats, weights: Doubles, intercepts: Doubles) -> tuple[float, Doubles]:
    """Return the negative log-likelihood with its penalty, and the probability of each candidate."""
    scores = candidates.values @ weights + intercepts[candidates.users]
    losses = np.logaddexp(0, scores) - candidates.is_relevant * scores
    return float(importance @ losses + _PENALTY * weights @ weights), expit(scores)


def _newton_step(
    candidates: Candidates, importance: Floats, shares: Doubles, weights: Doubles
) -> tuple[Doubles, Doubles]:
    """Return the Newton steps of the weights and of the intercepts; the latter are eliminated from the system."""
    values, starts = candidates.values, candidates.starts
    errors = importance * (shares - candidates.is_relevant)
    curvatures = importance * shares * (1 - shares)
    gradient = values.T @ errors + 2 * _PENALTY * weights
    gradients = np.add.reduceat(errors, starts)
    own = np.add.reduceat(curvatures, starts) + np.finfo(np.float64).tiny
    mixed = np.add.reduceat(curvatures[:, None] * values, starts)
    hessian: NDArray[np.float64] = values.T @ (curvatures[:, None] * values) + 2 * _PENALTY * np.eye(len(weights))
    matrix, vector = hessian - mixed.T @ (mixed / own[:, None]), gradient - mixed.T @ (gradients / own)
    step = np.linalg.solve(matrix, vector).astype(np.float64)
    return step, (gradients - mixed @ step) / own
