import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.model.batching import Histories
from batchrec.training import signals
from batchrec.training.signals import count_neighbours, read_signals
from tests.support.models import indexed, longs

SIZE, DAY = 9, 86_400
many_histories = st.lists(st.lists(st.integers(2, SIZE - 1), max_size=8), min_size=1, max_size=8)


@given(many_histories)
def test_similarities_are_shrunk_cosines_of_the_users_of_two_items(histories: list[list[int]]) -> None:
    neighbours, similarities = count_neighbours(indexed(*histories), SIZE)
    having = {item: {user for user, history in enumerate(histories) if item in history} for item in range(SIZE)}
    for item in range(SIZE):
        expected = {}
        for other in range(SIZE):
            shared = len(having[item] & having[other])
            if other != item and shared:
                expected[other] = shared / (math.sqrt(len(having[item]) * len(having[other])) + 3)
        ordered = sorted(expected, key=lambda other: (-np.float32(expected[other]), other))
        assert neighbours[item].tolist() == ordered + [0] * (SIZE - len(ordered))
        np.testing.assert_allclose(similarities[item][: len(ordered)], [expected[other] for other in ordered], 1e-5)
        assert not similarities[item][len(ordered) :].any()


def test_similarities_with_weights_are_shrunk_cosines_of_the_weights() -> None:
    histories = replace(indexed([2, 3, 2], [2, 4], [3, 4]), weights=np.array([1, 2, 3, 1, 1, 4, 2], np.float32))
    # The largest weight of a user's events with an item counts, divided by the mean weight, which is 2.
    weights = np.zeros((SIZE, 3))
    weights[[2, 3], 0], weights[[2, 4], 1], weights[[3, 4], 2] = (1.5, 1), (0.5, 0.5), (2, 1)
    neighbours, similarities = count_neighbours(histories, SIZE)
    for item in (2, 3, 4):
        for other, similarity in zip(neighbours[item][:2], similarities[item][:2], strict=True):
            lengths = np.linalg.norm(weights[item]) * np.linalg.norm(weights[other])
            assert similarity == pytest.approx(weights[item] @ weights[other] / (lengths + 3))
    assert neighbours[3].tolist()[:3] == [4, 2, 0]


def test_only_the_best_neighbours_and_the_newest_items_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_NEIGHBOURS", 2)
    monkeypatch.setattr(signals, "_PAIRED_ITEMS", 3)
    monkeypatch.setattr(signals, "_PAIRS_AT_A_TIME", 5)
    monkeypatch.setattr(signals, "_USERS_AT_A_TIME", 1)
    neighbours, _ = count_neighbours(indexed([2, 3, 4, 5], [3, 4], [4, 5]), SIZE)
    # The first user's item 2 is not among the newest three, so it has no neighbours.
    assert neighbours.tolist()[2:6] == [[0, 0], [4, 5], [3, 5], [4, 3]]


def test_popularity_counts_the_last_days_before_the_end_and_no_future_events() -> None:
    end = 100 * DAY
    times = longs([end - 40 * DAY, end - 20 * DAY, end - 3 * DAY, end, end + 400 * DAY])
    histories = Histories(np.array([2, 2, 3, 3, 4], np.int32), longs([0, 3, 5]))
    popularity = read_signals(histories, times, end + 1, SIZE).popularity
    counts = {name: np.round(np.expm1(values)).astype(int).tolist()[2:5] for name, values in popularity.items()}
    assert counts == {"popular_7_days": [0, 2, 0], "popular_30_days": [1, 2, 0], "popular": [2, 2, 1]}


def test_popularity_counts_events_by_their_weights() -> None:
    weights = np.array([0.5, 3.0, 2.0], np.float32)
    histories = Histories(np.array([2, 3, 2], np.int32), longs([0, 3]), weights=weights)
    popularity = read_signals(histories, longs([0, DAY, 2 * DAY]), 3 * DAY, SIZE).popularity
    for values in popularity.values():
        np.testing.assert_allclose(np.expm1(values[2:4]), [2.5, 3.0], rtol=1e-5)
