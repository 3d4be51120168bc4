import numpy as np
import pytest

from batchrec.arrays import Doubles, Floats
from batchrec.training.blend_fit import FittedWeights, fit_weights
from batchrec.training.candidates import Candidates
from batchrec.training.top_of_list import raise_ndcg

N_CANDIDATES = 60


def candidates_of(values: Floats, is_relevant: np.ndarray) -> Candidates:
    """Candidates of users with N_CANDIDATES each."""
    n_users = len(values) // N_CANDIDATES
    starts = np.arange(n_users) * N_CANDIDATES
    n_relevant = np.add.reduceat(is_relevant.astype(np.int64), starts)
    return Candidates(values, is_relevant, np.ones(len(values), np.float32), starts, n_relevant)


def drawn(weights: list[float], n_users: int, seed: int = 0) -> Candidates:
    """Candidates that are relevant with the probability of a logistic model; each user has another intercept."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(n_users * N_CANDIDATES, len(weights))).astype(np.float32)
    intercepts = np.repeat(generator.normal(-3, 1, n_users), N_CANDIDATES)
    is_relevant = values @ np.array(weights) + intercepts + generator.logistic(size=len(values)) > 0
    return candidates_of(values, is_relevant)


def test_the_weights_behind_the_choices_are_recovered() -> None:
    fitted = fit_weights(drawn([1.5, -0.8, 0.4], 4000), ["a", "b", "c"]).weights
    assert list(fitted.values()) == pytest.approx([1.5, -0.8, 0.4], abs=0.12)


def test_signals_that_are_the_same_for_all_candidates_have_finite_weights() -> None:
    # As in a log in which every user has taken all items but the one that is held out.
    values = np.tile(np.array([2.4, 0, -6.5], np.float32), (4, 1))
    candidates = Candidates(values, np.ones(4, bool), np.ones(4, np.float32), np.arange(4), np.ones(4, np.int64))
    weights = list(fit_weights(candidates, ["a", "b", "c"]).weights.values())
    assert np.abs(weights).max() < 1


@pytest.mark.slow
def test_scales_of_signals_do_not_matter() -> None:
    candidates = drawn([1.5, -0.8], 1500)
    factors = np.array([100.0, 0.01], np.float32)
    scaled = candidates_of(candidates.values * factors, candidates.is_relevant)
    first, second = (fit_weights(given, ["a", "b"]).weights for given in (candidates, scaled))
    assert np.array(list(second.values())) * factors == pytest.approx(list(first.values()), rel=1e-3)


def test_a_signal_that_the_likelihood_likes_but_that_harms_the_top_is_left_out() -> None:
    generator = np.random.default_rng(1)
    n_users = 100
    top, deep = generator.normal(size=(2, n_users, N_CANDIDATES)).astype(np.float32)
    # Half of the users choose by the first signal. The others choose by the second one, but only among items that the
    # first one puts far down: the second signal lifts these items, yet hardly ever into the list.
    scores = np.where(np.arange(n_users)[:, None] < n_users / 2, 4 * top, 3 * deep - 6 * (top > 0))
    chosen = (scores + generator.gumbel(size=scores.shape)).argmax(axis=1)
    is_relevant = np.arange(N_CANDIDATES) == chosen[:, None]
    candidates = candidates_of(np.stack([top.ravel(), deep.ravel()], axis=1), is_relevant.ravel())
    fitted = fit_weights(candidates, ["top", "deep"])
    assert fitted.weights["top"] > 0
    assert fitted.weights["deep"] == 0
    # Of one signal the gain is all of NDCG@10.
    assert fitted.gains == {"top": pytest.approx(candidates.ndcg(np.array([1.0, 0.0])).mean()), "deep": 0}


def saturated(n_users: int, n_relevant: int, below: float = 0) -> Candidates:
    """Users who take many items, and whose few best ones a linear model of the signals gets wrong.

    The first signal orders the items up to its middle and says nothing above, where the second one decides. below: how
    the second one counts under the middle.
    """
    generator = np.random.default_rng(2)
    low, high = generator.normal(size=(2, n_users, N_CANDIDATES)).astype(np.float32)
    scores = 6 * np.minimum(low, 0) + np.where(low > 0, 2, below) * high
    order = (-scores).argsort(axis=1).argsort(axis=1)
    values = np.stack([low.ravel(), high.ravel()], axis=1)
    return candidates_of(values, (order < n_relevant).ravel())


@pytest.mark.slow
def test_weights_are_moved_if_that_helps_the_top_of_other_users() -> None:
    candidates = saturated(300, 25)
    names = ["low", "high"]
    fitted = np.array(list(fit_weights(candidates, names).weights.values()))
    plain = np.array(list(fit_by_likelihood(candidates, names).values()))
    assert candidates.ndcg(fitted).mean() > candidates.ndcg(plain).mean() + 0.005


@pytest.mark.slow
def test_a_signal_that_decides_only_at_the_top_is_kept() -> None:
    candidates = saturated(300, 40, below=-2)
    names = ["low", "high"]
    assert fit_by_likelihood(candidates, names)["high"] == 0
    fitted = fit_weights(candidates, names)
    assert candidates.ndcg(weights_of(fitted)).mean() > 0.97
    # Its gain is over the weights fitted without it.
    without = raise_ndcg(candidates.with_values(candidates.values[:, :1]), np.ones(1))
    alone = candidates.with_values(candidates.values[:, :1]).ndcg(without)
    assert fitted.gains["high"] == pytest.approx(candidates.ndcg(weights_of(fitted)).mean() - alone.mean(), abs=1e-6)


def fit_by_likelihood(candidates: Candidates, names: list[str]) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchrec.training.blend_fit._helps_other_users", lambda _: False)
        return fit_weights(candidates, names).weights


def test_weights_are_not_moved_by_chance() -> None:
    candidates = drawn([1.0, -0.5], 60)
    assert fit_weights(candidates, ["a", "b"]).weights == fit_by_likelihood(candidates, ["a", "b"])


def test_the_fewer_users_the_less_weights_are_moved() -> None:
    candidates = saturated(300, 25)
    few = candidates.of_users(np.arange(candidates.n_users) < 20)
    start = np.array([1.8, 1.2])
    by_few, by_all = (np.linalg.norm(raise_ndcg(part, start) - start) for part in (few, candidates))
    assert 0 < by_few < by_all / 2


def test_moved_weights_rank_the_candidates_better_than_bad_ones() -> None:
    candidates = drawn([1.5, 0.0], 300)
    start = np.array([0.2, 1.0])
    assert candidates.ndcg(raise_ndcg(candidates, start)).mean() > candidates.ndcg(start).mean() + 0.1


def test_one_user_is_enough_to_fit() -> None:
    assert set(fit_weights(drawn([1.0], 1), ["a"]).weights) == {"a"}


def test_a_signal_gains_what_is_lost_without_it() -> None:
    candidates = drawn([1.5, 0.5], 500)
    fitted = fit_weights(candidates, ["a", "b"])
    assert fitted.gains["a"] > fitted.gains["b"] > 0
    alone = candidates.ndcg(np.array([0.0, 1.0]))
    assert fitted.gains["a"] == pytest.approx((candidates.ndcg(weights_of(fitted)) - alone).mean(), abs=1e-6)


def weights_of(fitted: FittedWeights) -> Doubles:
    return np.array(list(fitted.weights.values()))
