import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.arrays import Floats
from batchrec.training.blend_fit import Candidates, fit_weights, ndcg_of
from tests.support.models import longs

N_CANDIDATES = 60


def candidates_of(values: Floats, is_relevant: np.ndarray) -> Candidates:
    """Candidates of users with N_CANDIDATES each."""
    n_users = len(values) // N_CANDIDATES
    starts = np.arange(n_users) * N_CANDIDATES
    n_relevant = np.add.reduceat(is_relevant.astype(np.int64), starts)
    return Candidates(values, is_relevant, np.zeros(len(values), np.float32), starts, n_relevant)


def drawn(weights: list[float], n_users: int, seed: int = 0) -> Candidates:
    """Candidates whose one relevant item per user is drawn from the softmax of the weighted signals."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(n_users * N_CANDIDATES, len(weights))).astype(np.float32)
    scores = (values @ np.array(weights)).reshape(n_users, -1) + generator.gumbel(size=(n_users, N_CANDIDATES))
    is_relevant = np.zeros((n_users, N_CANDIDATES), bool)
    is_relevant[np.arange(n_users), scores.argmax(axis=1)] = True
    return candidates_of(values, is_relevant.ravel())


def test_the_weights_behind_the_choices_are_recovered() -> None:
    fitted = fit_weights(drawn([1.5, -0.8, 0.4], 4000), ["a", "b", "c"])
    assert list(fitted.values()) == pytest.approx([1.5, -0.8, 0.4], abs=0.12)


def test_scales_of_signals_do_not_matter() -> None:
    candidates = drawn([1.5, -0.8], 1500)
    factors = np.array([100.0, 0.01], np.float32)
    scaled = candidates_of(candidates.values * factors, candidates.is_relevant)
    first, second = fit_weights(candidates, ["a", "b"]), fit_weights(scaled, ["a", "b"])
    assert np.array(list(second.values())) * factors == pytest.approx(list(first.values()), rel=1e-3)


def test_a_signal_that_the_likelihood_likes_but_that_harms_the_top_is_left_out() -> None:
    generator = np.random.default_rng(0)
    n_users = 400
    good, bad = np.zeros((n_users, N_CANDIDATES), np.float32), np.zeros((n_users, N_CANDIDATES), np.float32)
    is_relevant = np.zeros((n_users, N_CANDIDATES), bool)
    is_relevant[:, 0] = True
    # Half of the users' items are found by the first signal. Those of the others are lifted by the second from the
    # bottom to the middle, which the likelihood likes; but it puts ten other items above those of the first half.
    good[: n_users // 2, 0] = 1.0
    good[:, 1:20] = 0.5
    bad[n_users // 2 :, 0] = 1.0
    bad[:, 1:20] = 3.0
    candidates = candidates_of(
        np.stack([good.ravel(), bad.ravel(), generator.normal(size=good.size).astype(np.float32) * 1e-3], axis=1),
        is_relevant.ravel(),
    )
    fitted = fit_weights(candidates, ["good", "bad", "noise"])
    weights = np.array(list(fitted.values()), np.float32)
    alone = ndcg_of(candidates, candidates.values[:, 0])
    assert ndcg_of(candidates, candidates.values @ weights).mean() >= alone.mean() - 0.02


@given(st.data())
def test_ndcg_equals_a_plain_reference(data: st.DataObject) -> None:
    users = data.draw(
        st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=14), min_size=1)
    )
    entries = [entry for user in users for entry in user]
    n_others = [data.draw(st.integers(0 if any(rel for _, rel in user) else 1, 3)) for user in users]
    n_relevant = [sum(rel for _, rel in user) + others for user, others in zip(users, n_others, strict=True)]
    lengths = np.array([len(user) for user in users])
    candidates = Candidates(
        np.zeros((len(entries), 1), np.float32),
        np.array([rel for _, rel in entries]),
        np.zeros(len(entries), np.float32),
        np.cumsum(lengths) - lengths,
        longs(n_relevant),
    )
    expected = []
    for user, relevant in zip(users, n_relevant, strict=True):
        ranked = sorted(user, key=lambda entry: (-entry[0], entry[1]))
        gain = sum(1 / math.log2(place + 2) for place, (_, rel) in enumerate(ranked[:10]) if rel)
        expected.append(gain / sum(1 / math.log2(place + 2) for place in range(min(10, relevant))))
    scores = np.array([score for score, _ in entries], np.float32)
    assert ndcg_of(candidates, scores).tolist() == pytest.approx(expected)
