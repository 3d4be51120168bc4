import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.training.candidates import Candidates
from tests.support.models import longs


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
        np.array([[score] for score, _ in entries], np.float32),
        np.array([rel for _, rel in entries]),
        np.ones(len(entries), np.float32),
        np.cumsum(lengths) - lengths,
        longs(n_relevant),
    )
    expected = []
    for user, relevant in zip(users, n_relevant, strict=True):
        ranked = sorted(user, key=lambda entry: (-entry[0], entry[1]))
        gain = sum(1 / math.log2(place + 2) for place, (_, rel) in enumerate(ranked[:10]) if rel)
        expected.append(gain / sum(1 / math.log2(place + 2) for place in range(min(10, relevant))))
    assert candidates.ndcg(np.ones(1)).tolist() == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=6))
def test_some_users_keep_their_own_candidates(users: list[tuple[int, bool]]) -> None:
    lengths = np.array([length for length, _ in users])
    numbers = np.repeat(np.arange(len(users)), lengths)
    candidates = Candidates(
        numbers[:, None].astype(np.float32),
        numbers % 2 == 0,
        numbers + 1.0,
        np.cumsum(lengths) - lengths,
        np.arange(1, len(users) + 1),
    )
    is_kept = np.array([kept for _, kept in users])
    kept = candidates.of_users(is_kept)
    expected = [number for number in numbers.tolist() if is_kept[number]]
    assert kept.values[:, 0].tolist() == expected
    assert kept.n_users == is_kept.sum()
    assert np.flatnonzero(is_kept)[kept.users].tolist() == expected
    assert kept.n_relevant.tolist() == (np.flatnonzero(is_kept) + 1).tolist()
