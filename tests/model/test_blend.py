import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.model.batching import Histories
from batchrec.model.blend import Blend, ScoredPairs, habit_columns, habits, taken_items
from tests.support.models import indexed, longs

histories_of_items = st.lists(st.lists(st.integers(2, 6), max_size=9), min_size=1, max_size=5)


def plain_taken(history: list[int]) -> list[tuple[int, int]]:
    """Each distinct item of a history, newest first, with how many came after it."""
    newest_first = list(dict.fromkeys(reversed(history)))
    return [(item, place) for place, item in enumerate(newest_first)]


@given(histories_of_items, st.data())
def test_taken_items_are_counted_user_by_user(histories: list[list[int]], data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=4))
    taken = taken_items(indexed(*histories), longs(users))
    rows = zip(taken.rows.tolist(), taken.items.tolist(), taken.places.tolist(), strict=True)
    expected = [(row, *entry) for row, user in enumerate(users) for entry in plain_taken(histories[user])]
    assert list(rows) == expected


days_of_events = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(2, 5)), max_size=9).map(sorted), min_size=1, max_size=5
)


def dated(*users: list[tuple[int, int]]) -> Histories:
    """Histories of events, each a day and an item."""
    same_day = [place > 0 and user[place - 1][0] == day for user in users for place, (day, _) in enumerate(user)]
    return replace(indexed(*([item for _, item in user] for user in users)), same_day=np.array(same_day, bool))


def plain_habits(events: list[tuple[int, int]]) -> dict[int, tuple[float, float]]:
    """Each item's two columns: times taken, and the days on which it was taken, by the days with events since."""
    days = sorted({day for day, _ in events}, reverse=True)
    items = {item for _, item in events}
    n_times = {item: sum(item == other for _, other in events) for item in items}
    n_days = {
        item: sum(0.9 ** days.index(day) for day in {day for day, other in events if other == item}) for item in items
    }
    return {item: (math.log1p(n_times[item]), math.log1p(n_days[item])) for item in items}


@given(days_of_events, st.data())
def test_habits_equal_those_of_a_plain_loop(users: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.integers(0, len(users) - 1), max_size=4))
    rows, items, columns = habit_columns(dated(*users), longs(asked))
    expected = {
        (row, item): habit for row, user in enumerate(asked) for item, habit in plain_habits(users[user]).items()
    }
    assert list(zip(rows.tolist(), items.tolist(), strict=True)) == sorted(expected)
    for pair, column in zip(sorted(expected), columns.tolist(), strict=True):
        assert column == pytest.approx(expected[pair], rel=1e-6)


@given(days_of_events, st.data())
def test_kept_events_keep_their_days(users: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    n_events = sum(map(len, users))
    is_kept = data.draw(st.lists(st.booleans(), min_size=n_events, max_size=n_events))
    flags = iter(is_kept)
    kept = [[event for event in user if next(flags)] for user in users]
    found = dated(*users).keep(np.array(is_kept, bool)).same_day
    expected = dated(*kept).same_day
    assert found is not None
    assert expected is not None
    assert found.tolist() == expected.tolist()


def blend_of_habit(times: float, lately: float) -> Blend:
    none = np.zeros((9, 0), np.float32)
    return Blend(
        np.ones(1, np.float32),
        np.zeros(9, np.float32),
        none.astype(np.int32),
        none,
        np.zeros(0, np.float32),
        np.array([times, lately], np.float32),
    )


def test_a_habit_counts_times_and_how_lately() -> None:
    added = habits(blend_of_habit(2.0, 3.0), indexed([4, 5, 4]), longs([0]))
    assert (added.rows.tolist(), added.items.tolist()) == ([0, 0], [4, 5])
    lately = [np.log(1 + 1 + 0.9**2), np.log(1 + 0.9)]
    np.testing.assert_allclose(added.scores, [2 * np.log(3) + 3 * lately[0], 2 * np.log(2) + 3 * lately[1]], rtol=1e-6)


def test_a_blend_without_habit_adds_nothing() -> None:
    assert len(habits(blend_of_habit(0.0, 0.0), indexed([4, 5, 4]), longs([0])).rows) == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(2, 8)), max_size=12), st.permutations(range(5)), st.data())
def test_pairs_of_rows_are_those_of_the_rows_in_their_new_order(
    pairs: list[tuple[int, int]], order: list[int], data: st.DataObject
) -> None:
    rows = order[: data.draw(st.integers(0, 5))]
    numbers = np.array(pairs, np.int64).reshape(-1, 2)
    given_pairs = ScoredPairs(numbers[:, 0], numbers[:, 1], np.arange(len(pairs), dtype=np.float32))
    kept = given_pairs.of_rows(longs(rows), 5)
    expected = [(rows.index(row), item, float(place)) for place, (row, item) in enumerate(pairs) if row in rows]
    assert list(zip(kept.rows.tolist(), kept.items.tolist(), kept.scores.tolist(), strict=True)) == expected
