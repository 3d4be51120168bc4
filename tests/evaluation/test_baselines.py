"""The baselines' lists, against the same methods in plain Python."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import EvaluationConfig
from batchrec.evaluation.als import als_lists
from batchrec.evaluation.baselines import Baselines
from batchrec.tables.queries import materialize
from tests.support.logs import Log, SplitLog, logs, split_log
from tests.support.models import examples

pytestmark = pytest.mark.usefixtures("one_duckdb")

K = 3
# Small, so that few events exceed them.
LIMITS = {"_PAIRED_ITEMS": 3, "_NEIGHBOURS": 2, "_QUERY_ITEMS": 2, "_USERS_AT_A_TIME": 3}
Lists = dict[Any, list[Any]]


@contextmanager
def small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name, limit in LIMITS.items():
            patched.setattr(f"batchrec.evaluation.baselines.{name}", limit)
        yield


def config(keep_seen: bool = False, **options: Any) -> EvaluationConfig:
    return EvaluationConfig(**{"top_k": K, "keep_seen": keep_seen, **options})


def gather(batches: Iterable[pa.RecordBatch]) -> Lists:
    """Return each user's list, best item first; check that ranks have no gaps."""
    lists: Lists = defaultdict(list)
    for batch in batches:
        assert batch.schema.names == ["user_id", "rank", "item_id"]
        for row in batch.to_pylist():
            lists[row["user_id"]].append(row["item_id"])
            assert row["rank"] == len(lists[row["user_id"]])
    return dict(lists)


def queries(split: SplitLog, options: EvaluationConfig) -> Baselines:
    return Baselines(split.con, split.lists_schema, options)


def training_part(split: SplitLog) -> dict[int, list[tuple[str, int]]]:
    """The events of each user by number, oldest first."""
    events: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for user, _, item, moment in sorted(split.rows("training_events", "user_index, place, item_id, moment")):
        events[user].append((item, moment))
    return events


def best(scores: dict[str, Any], left_out: set[str]) -> list[str]:
    ranked = sorted(scores, key=lambda item: (-scores[item], item))
    return [item for item in ranked if item not in left_out][:K]


def expected_lists(split: SplitLog, keep_seen: bool, scores_of: Any) -> Lists:
    """Return each tested user's best items; scores_of: returns items' scores for a user's own items, newest first.

    Users without a list are left out.
    """
    trained = training_part(split)
    lists = {}
    for user, number in split.rows("tested_users", "user_id, user_index"):
        items = [item for item, _ in reversed(trained[number])]
        lists[user] = best(scores_of(list(dict.fromkeys(items))), set() if keep_seen else set(items))
    return {user: items for user, items in lists.items() if items}


@settings(max_examples=examples(30))
@given(log=logs(), keep_seen=st.booleans())
def test_popular_items_are_those_with_most_events(log: Log, keep_seen: bool) -> None:
    with split_log(log, config(keep_seen)) as split, small_limits():
        counts = Counter(item for events in training_part(split).values() for item, _ in events)
        assert gather(queries(split, config(keep_seen)).popular()) == expected_lists(split, keep_seen, lambda _: counts)


@settings(max_examples=examples(20))
@given(log=logs(), days=st.integers(1, 9))
def test_recently_popular_items_have_the_most_recent_events(log: Log, days: int) -> None:
    daily = {user: [(item, moment * 86_400) for item, moment in events] for user, events in log.items()}
    with split_log(daily, config()) as split:
        events = [event for history in training_part(split).values() for event in history]
        newest = max(moment for _, moment in events)
        counts = Counter(item for item, moment in events if moment > newest - days * 86_400)
        lists = gather(queries(split, config()).popular(days))
        assert lists == expected_lists(split, False, lambda _: counts)


@settings(max_examples=examples(30))
@given(log=logs(), days=st.integers(1, 9))
def test_personal_frequency_is_filled_up_by_the_popular_items_of_the_last_days(log: Log, days: int) -> None:
    daily = {user: [(item, moment * 86_400) for item, moment in events] for user, events in log.items()}
    options = config(keep_seen=True, popular_days=days)
    with split_log(daily, options) as split, small_limits():
        trained = training_part(split)
        events = [event for history in trained.values() for event in history]
        newest = max(moment for _, moment in events)
        counts = Counter(item for item, moment in events if moment > newest - days * 86_400)
        expected = {}
        for user, number in split.rows("tested_users", "user_id, user_index"):
            newest_first = [item for item, _ in reversed(trained[number])]
            places = {item: place for place, item in enumerate(sorted(counts, key=lambda item: (-counts[item], item)))}
            # sorted keeps the order of ties.
            own = sorted(
                dict.fromkeys(newest_first),
                key=lambda item: (-newest_first.count(item), places.get(item, len(places))),
            )
            expected[user] = (own + best(counts, set(own)))[:K]
        assert gather(queries(split, options).personal_frequency()) == expected


def test_personal_frequency_counts_repeats_and_prefers_the_popular_among_ties() -> None:
    mine = [("a", 1), ("b", 2), ("b", 3), ("c", 4), ("d", 5)]
    log = {"me": [*mine, ("e", 6)], "other": [("c", 0), ("c", 1), ("y", 2), ("x", 3)]}
    with split_log(log, config(keep_seen=True)) as split:
        assert gather(queries(split, config(keep_seen=True)).personal_frequency())["me"] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {"popular, last 30 days"}),
        ({"popular_days": 7}, set()),
        ({"popular_days": 3, "keep_seen": True}, {"popular, last 3 days", "personal frequency"}),
    ],
)
def test_a_week_is_always_one_of_the_baselines(options: dict[str, Any], more: set[str]) -> None:
    always = {"popular", "popular, last 7 days", "item-to-item", "item-to-item, recency-weighted"}
    with split_log(two_circles(), config()) as split:
        assert set(queries(split, config(**options)).by_name()) == always | more


def neighbours(histories: list[list[str]], shrinkage: int = 0) -> dict[str, dict[str, int]]:
    """The cosines of each item with its best neighbours, in units of 1e-12.

    histories: different items, newest first.
    """
    owners: dict[str, set[int]] = defaultdict(set)
    for user, items in enumerate(histories):
        for item in items[: LIMITS["_PAIRED_ITEMS"]]:
            owners[item].add(user)
    cosines: dict[str, dict[str, int]] = defaultdict(dict)
    for one, users in owners.items():
        for other, others in owners.items():
            if one != other and users & others:
                cosine = len(users & others) / (math.sqrt(len(users) * len(others)) + shrinkage)
                cosines[one][other] = round(cosine * 1e12)
    return {
        one: dict(sorted(near.items(), key=lambda pair: (-pair[1], pair[0]))[: LIMITS["_NEIGHBOURS"]])
        for one, near in cosines.items()
    }


@settings(max_examples=examples(30))
@given(log=logs(), keep_seen=st.booleans())
def test_neighbours_are_ranked_by_the_cosine_of_their_users(log: Log, keep_seen: bool) -> None:
    with split_log(log, config(keep_seen)) as split, small_limits():
        histories = [
            list(dict.fromkeys(item for item, _ in reversed(events))) for events in training_part(split).values()
        ]
        near = neighbours(histories)

        def scores_of(items: list[str]) -> dict[str, int]:
            scores: Counter[str] = Counter()
            for item in items[: LIMITS["_QUERY_ITEMS"]]:
                scores.update(near.get(item, {}))
            return scores

        lists = gather(queries(split, config(keep_seen)).item_to_item())
        assert lists == expected_lists(split, keep_seen, scores_of)
        materialize(split.con, "evaluation/neighbours", items_per_user=3, neighbours_per_item=2, shrinkage=0)
        numbers = dict(split.rows("training_items", "item_index, item_id"))
        rows = split.rows("neighbours", "item_index, neighbour, cosine")
    made = {(numbers[one], numbers[other]): int(cosine * 10**12) for one, other, cosine in rows}
    assert made == {(one, other): cosine for one, others in near.items() for other, cosine in others.items()}


@settings(max_examples=examples(30))
@given(log=logs(), keep_seen=st.booleans())
def test_recency_weighted_neighbours_count_less_the_older_the_users_item(log: Log, keep_seen: bool) -> None:
    with split_log(log, config(keep_seen)) as split, small_limits():
        histories = [
            list(dict.fromkeys(item for item, _ in reversed(events))) for events in training_part(split).values()
        ]
        near = neighbours(histories, shrinkage=3)

        def scores_of(items: list[str]) -> dict[str, int]:
            scores: Counter[str] = Counter()
            for place, item in enumerate(items[: LIMITS["_QUERY_ITEMS"]]):
                scores.update(
                    {other: round(cosine / (1 + place) ** 0.5) for other, cosine in near.get(item, {}).items()}
                )
            return scores

        lists = gather(queries(split, config(keep_seen)).item_to_item(shrinkage=3, decay=0.5))
        assert lists == expected_lists(split, keep_seen, scores_of)


def two_circles() -> dict[int, list[tuple[int, int]]]:
    """20 users of the items 0 to 9 and 20 of 10 to 19, each with 5 items of their half; their last times differ."""
    return {
        user: [(10 * (user % 2) + (user // 2 + 3 * place) % 10, user + place) for place in range(5)]
        for user in range(40)
    }


def als(split: SplitLog, seed: int = 0, **options: Any) -> Lists:
    pytest.importorskip("implicit")
    return gather(als_lists(split.con, split.lists_schema, config(**{"als_factors": 2, **options}), seed))


def test_als_recommends_what_users_of_the_same_items_have() -> None:
    with split_log(two_circles(), config()) as split:
        lists = als(split)
        seen = {user: {item for item, _ in events[:-1]} for user, events in two_circles().items()}
    assert set(lists) == set(two_circles())
    for user, items in lists.items():
        assert len(items) == K
        assert {item // 10 for item in items} == {user % 2}
        assert not seen[user] & set(items)


def test_als_recommends_seen_items_with_keep_seen() -> None:
    with split_log(two_circles(), config()) as split:
        lists = als(split, keep_seen=True, als_factors=10)
        seen = {user: {item for item, _ in events[:-1]} for user, events in two_circles().items()}
    assert all(seen[user] & set(items) for user, items in lists.items())


def test_als_lists_depend_on_the_seed_but_not_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    with split_log(two_circles(), config()) as split:
        once = als(split, seed=2**62)
        monkeypatch.setattr("batchrec.evaluation.als._USERS_AT_A_TIME", 7)
        assert als(split, seed=2**62) == once


def test_als_recommends_all_items_left_if_they_are_few() -> None:
    log = {1: [(item, item) for item in range(5)], 2: [(0, 0), (1, 1), (4, 2), (3, 3)], 3: [(0, 0)]}
    with split_log(log, config()) as split:
        lists = als(split)
    assert set(lists[1]) == {4}
    assert set(lists[2]) == {2, 3}


@pytest.mark.parametrize("keep_seen", [False, True])
def test_integer_and_text_ids_get_the_same_lists(keep_seen: bool) -> None:
    log = two_circles()
    # Padded to equal width, so that text sorts like the numbers.
    text = {f"{user:02}": [(f"{item:02}", moment) for item, moment in events] for user, events in log.items()}
    with split_log(log, config()) as numbers, split_log(text, config()) as names:
        of_numbers = queries(numbers, config(keep_seen)).by_name()
        of_names = queries(names, config(keep_seen)).by_name()
        for method in of_numbers:
            by_number, by_name = gather(of_numbers[method]), gather(of_names[method])
            assert by_name == {f"{user:02}": [f"{item:02}" for item in items] for user, items in by_number.items()}
            assert set(by_number) == set(log)
