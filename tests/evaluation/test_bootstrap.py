"""Bootstrap intervals, against normal theory and resampling done directly."""

import numpy as np
import pytest
from numpy.typing import NDArray

from batchrec.evaluation.bootstrap import Interval, compare


def draws(*shape: int, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random(shape)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_means_are_those_of_the_users() -> None:
    values = draws(3, 50, 4)
    for method, comparison in zip(values, compare(values, 100, generator()), strict=True):
        assert [interval.mean for interval in comparison.metrics] == pytest.approx(method.mean(axis=0))
        gains = [method[:, 0].mean() - other[:, 0].mean() for other in values]
        assert [gain.mean for gain in comparison.gains] == pytest.approx(gains)


def test_intervals_are_percentiles_of_resampled_means() -> None:
    values = draws(3, 30, 3)
    drawn = generator()
    means = np.array([values[:, drawn.integers(30, size=30)].mean(axis=1) for _ in range(200)])
    lows, highs = np.quantile(means, [0.025, 0.975], axis=0)
    for method, comparison in enumerate(compare(values, 200, generator())):
        assert [interval.low for interval in comparison.metrics] == pytest.approx(lows[method])
        assert [interval.high for interval in comparison.metrics] == pytest.approx(highs[method])
        for other, gain in enumerate(comparison.gains):
            bounds = np.quantile(means[:, method, 0] - means[:, other, 0], [0.025, 0.975])
            assert (gain.low, gain.high) == pytest.approx(tuple(bounds))


def test_the_intervals_are_as_wide_as_normal_theory_says() -> None:
    values = draws(1, 2000, 1)
    ((interval,),) = (comparison.metrics for comparison in compare(values, 2000, generator()))
    width = 2 * 1.96 * values.std() / np.sqrt(2000)
    assert interval.high - interval.low == pytest.approx(width, rel=0.1)
    assert interval.low < interval.mean < interval.high


def test_a_small_gain_for_every_user_is_significant() -> None:
    reference = draws(200, 1)
    better, same = compare(np.stack([reference + 0.01, reference]), 500, generator())
    assert better.metrics[0].low < same.metrics[0].high
    assert (better.gains[1].low, better.gains[1].high) == pytest.approx((0.01, 0.01))
    assert same.gains[1] == Interval(0, 0, 0)


def test_only_clear_gains_and_losses_exclude_zero() -> None:
    reference, noise = draws(500, 1), draws(3, 500, 1, seed=2) - 0.5
    better, worse, equal, _ = compare(
        np.stack([reference + 0.2 + noise[0], reference - 0.2 + noise[1], reference + noise[2], reference]),
        500,
        generator(),
    )
    assert better.gains[3].low > 0
    assert worse.gains[3].high < 0
    assert equal.gains[3].low < 0 < equal.gains[3].high


def test_one_seed_gives_one_result() -> None:
    values = draws(2, 40, 4)
    assert compare(values, 100, generator()) == compare(values, 100, generator())
    assert compare(values, 100, generator()) != compare(values, 100, np.random.default_rng(1))


def test_one_user_is_drawn_every_time() -> None:
    ((comparison),) = compare(np.array([[[0.25]]]), 100, generator())
    assert comparison.metrics == [Interval(0.25, 0.25, 0.25)]
