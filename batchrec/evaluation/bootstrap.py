"""Bootstrap intervals over the users, for the metrics of each method and for its gain over each other method."""

from dataclasses import dataclass

import numpy as np

from batchrec.arrays import Doubles

_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """A mean over the users, and the percentile interval with 95 % of its resamples."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MethodComparison:
    """The metrics of one method, in the given order, and its gain over each method in the first metric."""

    metrics: list[Interval]
    gains: list[Interval]


def compare(values: Doubles, n_resamples: int, generator: np.random.Generator) -> list[MethodComparison]:
    """Compare methods by their metrics for the same users, with the same resamples of users for all.

    values: (methods, users, metrics) float64. Returns one comparison per method; the gain over itself is 0.
    Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    n_methods, n_users, n_metrics = values.shape
    columns = values.transpose(1, 0, 2).reshape(n_users, -1)
    resampled = np.empty((n_resamples, n_methods * n_metrics))
    for means in resampled:
        # How often each user is drawn: a matrix of users by resamples is never held in memory.
        weights = np.bincount(generator.integers(n_users, size=n_users), minlength=n_users)
        means[:] = weights @ columns / n_users
    resampled = resampled.reshape(n_resamples, n_methods, n_metrics)
    firsts = resampled[:, :, 0]
    means = values.mean(axis=1)
    return [
        MethodComparison(
            metrics=[_interval(means[method, metric], resampled[:, method, metric]) for metric in range(n_metrics)],
            gains=[
                _interval(means[method, 0] - means[other, 0], firsts[:, method] - firsts[:, other])
                for other in range(n_methods)
            ],
        )
        for method in range(n_methods)
    ]


def _interval(mean: float, resampled: Doubles) -> Interval:
    low, high = np.quantile(resampled, _TAILS)
    return Interval(float(mean), float(low), float(high))
