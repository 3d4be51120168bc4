"""How sure a comparison is: bootstrap intervals over the users, of each method and of its gain over another."""

from dataclasses import dataclass

import numpy as np

from batchrec.arrays import Doubles

_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """A mean over the users and the percentile interval that holds 95 % of its resamples."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MethodComparison:
    """The metrics of one method, in the order they were given, and its gain in the first over the reference."""

    metrics: list[Interval]
    gain: Interval


def compare(
    values: Doubles, reference: int, n_resamples: int, generator: np.random.Generator
) -> list[MethodComparison]:
    """Compare methods by their metrics for the same users, all by the same resamples of the users.

    values: (methods, users, metrics) float64. reference: the method whose first metric the gains are measured from.
    Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. Returns one comparison a method.
    """
    n_methods, n_users, n_metrics = values.shape
    columns = values.transpose(1, 0, 2).reshape(n_users, -1)
    resampled = np.empty((n_resamples, n_methods * n_metrics))
    for means in resampled:
        # How often each user is drawn: users times resamples never stand in memory.
        weights = np.bincount(generator.integers(n_users, size=n_users), minlength=n_users)
        means[:] = weights @ columns / n_users
    resampled = resampled.reshape(n_resamples, n_methods, n_metrics)
    firsts = resampled[:, :, 0]
    means = values.mean(axis=1)
    return [
        MethodComparison(
            metrics=[_interval(means[method, metric], resampled[:, method, metric]) for metric in range(n_metrics)],
            gain=_interval(means[method, 0] - means[reference, 0], firsts[:, method] - firsts[:, reference]),
        )
        for method in range(n_methods)
    ]


def _interval(mean: float, resampled: Doubles) -> Interval:
    low, high = np.quantile(resampled, _TAILS)
    return Interval(float(mean), float(low), float(high))
