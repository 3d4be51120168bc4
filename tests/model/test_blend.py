import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batchrec.model.blend import Blend, ScoredPairs, habits, taken_items
from tests.support.models import indexed, longs

histories_of_items = st.lists(st.lists(st.integers(2, 6), max_size=9), min_size=1, max_size=5)


def plain_taken(history: list[int]) -> list[tuple[int, int, int]]:
    """Each distinct item of a history, newest first, with how often it was taken and how many came after it."""
    newest_first = list(dict.fromkeys(reversed(history)))
    return [(item, history.count(item), place) for place, item in enumerate(newest_first)]


@given(histories_of_items, st.data())
def test_taken_items_are_counted_user_by_user(histories: list[list[int]], data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=4))
    taken = taken_items(indexed(*histories), longs(users))
    rows = zip(taken.rows.tolist(), taken.items.tolist(), taken.counts.tolist(), taken.places.tolist(), strict=True)
    expected = [(row, *entry) for row, user in enumerate(users) for entry in plain_taken(histories[user])]
    assert list(rows) == expected


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
    np.testing.assert_allclose(added.scores, [2 * np.log(3) + 3, 2 * np.log(2) + 1.5], rtol=1e-6)


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
