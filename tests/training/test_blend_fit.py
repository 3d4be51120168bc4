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
    generator = np.random.default_rng(1)
    n_users = 400
    top, deep = generator.normal(size=(2, n_users, N_CANDIDATES)).astype(np.float32)
    # Half of the users choose by the first signal. The others choose by the second one, but only among items that the
    # first one puts far down: the second signal lifts these items, yet hardly ever into the list.
    scores = np.where(np.arange(n_users)[:, None] < n_users / 2, 4 * top, 3 * deep - 6 * (top > 0))
    chosen = (scores + generator.gumbel(size=scores.shape)).argmax(axis=1)
    is_relevant = np.arange(N_CANDIDATES) == chosen[:, None]
    candidates = candidates_of(np.stack([top.ravel(), deep.ravel()], axis=1), is_relevant.ravel())
    fitted = fit_weights(candidates, ["top", "deep"])
    assert fitted["top"] > 0
    assert fitted["deep"] == 0


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
