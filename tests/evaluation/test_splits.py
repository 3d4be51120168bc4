"""Training events, tested users and test items by both protocols."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import EvaluationConfig
from batchrec.errors import BatchrecError, ConfigError, InputError
from batchrec.evaluation.splits import split_sequences
from batchrec.tables.queries import connect
from batchrec.tables.sequences_table import open_sequences
from tests.support.logs import Events, Log, logs, split_log, write_log
from tests.support.models import examples

pytestmark = pytest.mark.usefixtures("one_duckdb")

DAY = 86_400


def histories_in(path: Path) -> dict[Any, list[tuple[Any, int]]]:
    return {
        row["user_id"]: list(zip(row["item_ids"], row["timestamps"], strict=True))
        for row in pq.read_table(path).to_pylist()
    }


def leave_one_out(events: Events, keep_seen: bool) -> tuple[Events, set[Any], str | None]:
    """The training part of a history, its test items, and the reason if there are none."""
    if len(events) < 3:
        return events, set(), "fewer than 3 events"
    last, _ = events[-1]
    if not keep_seen and last in {item for item, _ in events[:-1]}:
        return events, set(), "last item seen before"
    return events[:-1], {last}, None


def temporal(events: Events, cut: int, keep_seen: bool) -> tuple[Events, set[Any], str | None]:
    before = [event for event in events if event[1] < cut]
    after = {item for item, moment in events if moment >= cut}
    new = after if keep_seen else after - {item for item, _ in before}
    if not after:
        return before, set(), "no event after the cut"
    if not before:
        return before, set(), "no history before the cut"
    return before, new, None if new else "nothing new after the cut"


def next_only(parts: tuple[Events, set[Any], str | None], events: Events) -> tuple[Events, set[Any], str | None]:
    """The same parts with only the first test item after the training part."""
    before, items, reason = parts
    first = [item for item, _ in events[len(before) :] if item in items][:1]
    return before, set(first), reason


def listed(events: Events, items: set[Any], keep_seen: bool) -> tuple[Events, set[Any], str | None]:
    """The parts of a history whose test items are listed."""
    last = {item: place for place, (item, _) in enumerate(events)}
    if not items:
        return events, set(), "not in --split"
    before = events[: min(last[item] for item in items)]
    new = items if keep_seen else items - {item for item, _ in before}
    if not before:
        return before, set(), "no history before the test items"
    return before, new, None if new else "no new test item"


def assert_split(log: Log, expected: dict[Any, tuple[Events, set[Any], str | None]], config: EvaluationConfig) -> None:
    tested = {user: parts for user, parts in expected.items() if parts[2] is None}
    trained = {user: list(events) for user, (events, _, _) in expected.items() if events}
    with split_log(log, config) as split:
        counts = split.parts.counts
        assert histories_in(split.parts.training) == trained
        assert histories_in(split.parts.histories) == {user: list(events) for user, (events, _, _) in tested.items()}
        test_items = sorted(split.rows("test_items", "user_id, item_id"))
    assert test_items == sorted((user, item) for user, (_, items, _) in tested.items() for item in items)
    known = {item for events in trained.values() for item, _ in events}
    assert counts.users_tested == len(tested)
    assert counts.users_not_tested == Counter(reason for _, _, reason in expected.values() if reason)
    assert counts.users_tested + sum(counts.users_not_tested.values()) == len(log)
    assert counts.test_items == len(test_items)
    assert counts.unknown_test_items == sum(item not in known for _, item in test_items)
    assert counts.training_users == len(trained)
    assert counts.training_items == len(known)
    assert counts.training_events == sum(map(len, trained.values()))


@settings(max_examples=examples(40))
@given(log=logs(), keep_seen=st.booleans())
def test_the_last_event_is_tested_and_all_before_it_trained_on(log: Log, keep_seen: bool) -> None:
    expected = {user: leave_one_out(events, keep_seen) for user, events in log.items()}
    assert_split(log, expected, EvaluationConfig(top_k=1, keep_seen=keep_seen))


@settings(max_examples=examples(40))
@given(log=logs(), cut=st.integers(1, 9), keep_seen=st.booleans())
def test_events_before_the_cut_are_trained_on_and_later_ones_tested(log: Log, cut: int, keep_seen: bool) -> None:
    expected = {user: temporal(events, cut, keep_seen) for user, events in log.items()}
    moment = f"1970-01-01T00:00:0{cut}Z"
    assert_split(log, expected, EvaluationConfig("temporal", moment, top_k=1, keep_seen=keep_seen))


@settings(max_examples=examples(40))
@given(log=logs(), cut=st.integers(1, 9), keep_seen=st.booleans())
def test_the_next_item_after_the_cut_is_the_first_of_all(log: Log, cut: int, keep_seen: bool) -> None:
    expected = {user: next_only(temporal(events, cut, keep_seen), events) for user, events in log.items()}
    moment = f"1970-01-01T00:00:0{cut}Z"
    assert_split(log, expected, EvaluationConfig("temporal", moment, question="next", top_k=1, keep_seen=keep_seen))


def write_pairs(folder: str, pairs: list[tuple[Any, Any]]) -> str:
    file = Path(folder, "split.csv")
    file.write_text("".join(f"{user},{item}\n" for user, item in [("user_id", "item_id"), *pairs]), encoding="utf-8")
    return str(file)


@settings(max_examples=examples(40))
@given(log=logs(), keep_seen=st.booleans(), question=st.sampled_from(["next", "all"]), draws=st.data())
def test_a_listed_user_is_trained_on_up_to_the_first_test_event(
    log: Log, keep_seen: bool, question: Literal["next", "all"], draws: st.DataObject
) -> None:
    items = {user: {item for item, _ in events} for user, events in log.items()}
    listed_items = {user: draws.draw(st.sets(st.sampled_from(sorted(own)))) for user, own in items.items() if own}
    # Two users who can be tested, and enough to train on, whatever the others are.
    listed_items |= {"y": {"i"}, "z": set()}
    expected = {user: listed(events, listed_items.get(user, set()), keep_seen) for user, events in log.items()}
    if question == "next":
        expected = {user: next_only(parts, log[user]) for user, parts in expected.items()}
    pairs = [(user, item) for user, own in listed_items.items() for item in sorted(own)]
    with TemporaryDirectory() as folder:
        # A pair that is listed twice is one test item.
        split = write_pairs(folder, [*pairs, pairs[0]])
        assert_split(
            log, expected, EvaluationConfig("split", question=question, split=split, top_k=1, keep_seen=keep_seen)
        )


@settings(max_examples=examples(20))
@given(log=logs(), keep_seen=st.booleans())
def test_listing_the_last_items_is_leave_one_out(log: Log, keep_seen: bool) -> None:
    with split_log(log, EvaluationConfig(top_k=1, keep_seen=keep_seen)) as split:
        pairs = split.rows("test_items", "user_id, item_id")
        trained, counts = histories_in(split.parts.training), split.parts.counts
    with TemporaryDirectory() as folder:
        config = EvaluationConfig("split", split=write_pairs(folder, pairs), top_k=1, keep_seen=keep_seen)
        with split_log(log, config) as split:
            assert sorted(split.rows("test_items", "user_id, item_id")) == sorted(pairs)
            assert histories_in(split.parts.training) == trained
            n_not_tested = sum(counts.users_not_tested.values())
            reasons = {"not in --split": n_not_tested} if n_not_tested else {}
            assert split.parts.counts == replace(counts, users_not_tested=reasons)


@pytest.mark.parametrize(("protocol", "cut"), [("leave-one-out", None), ("temporal", "1970-01-03"), ("split", None)])
def test_the_weights_of_events_stay_with_their_events(protocol: Any, cut: str | None, tmp_path: Path) -> None:
    events = [("a", 0), ("b", DAY), ("c", 2 * DAY)]
    path = write_log(tmp_path / "sequences.parquet", {"y": events, "z": events})
    weights = pa.array([[3.0, 1.0, 2.0], [1.0, 5.0, 4.0]], pa.list_(pa.float32()))
    pq.write_table(pq.read_table(path).append_column("weights", weights), path)
    split = write_pairs(str(tmp_path), [("y", "c"), ("z", "c")]) if protocol == "split" else None
    parts_folder = tmp_path / "parts"
    parts_folder.mkdir()
    with connect() as con:
        config = EvaluationConfig(protocol, cut, split=split, top_k=1)
        parts = split_sequences(con, open_sequences(path), config, 0, parts_folder)
    for part in (parts.training, parts.histories):
        assert pq.read_table(part)["weights"].to_pylist() == [[3.0, 1.0], [1.0, 5.0]]


def daily(n_days: int) -> dict[int, list[tuple[int, int]]]:
    """Two users with an event at each midnight, one item per day."""
    return {user: [(day, day * DAY) for day in range(n_days)] for user in (1, 2)}


@pytest.mark.parametrize(
    ("cut", "first_day"),
    [
        ("1970-01-05", 4),
        ("1970-01-05T00:00:00Z", 4),
        ("1970-01-05T01:00:00+01:00", 4),
        ("1970-01-05T00:00:00.5", 5),
        ("1970-01-05 00:00:01", 5),
    ],
)
def test_a_cut_is_a_moment_in_utc(cut: str, first_day: int) -> None:
    with split_log(daily(10), EvaluationConfig("temporal", cut, top_k=1)) as split:
        assert {day for _, day in split.rows("test_items", "user_id, item_id")} == set(range(first_day, 10))


@pytest.mark.parametrize(("days", "first_day"), [(None, 3), (7.0, 3), (1.0, 9), (1.5, 8), (2.0, 8)])
def test_the_last_days_of_a_daily_log_are_that_many_midnights(days: float | None, first_day: int) -> None:
    with split_log(daily(10), EvaluationConfig("temporal", test_days=days, top_k=1)) as split:
        assert {day for _, day in split.rows("test_items", "user_id, item_id")} == set(range(first_day, 10))
        assert split.parts.cut is not None
        assert (first_day - 1) * DAY < split.parts.cut <= first_day * DAY


def many(n_users: int = 40) -> dict[int, list[tuple[int, int]]]:
    return {user: [(user + place, place) for place in range(4)] for user in range(n_users)}


def test_a_sample_is_drawn_by_the_seed() -> None:
    samples = []
    for seed in (1, 1, 2):
        with split_log(many(), EvaluationConfig(test_users=10), seed) as split:
            samples.append({user for (user,) in split.rows("tested_users", "user_id")})
            assert split.parts.counts.users_not_tested == {"not in the sample": 30}
            assert set(histories_in(split.parts.histories)) == samples[-1]
    assert len(samples[0]) == 10
    assert samples[0] == samples[1] != samples[2]


def test_a_sample_trains_on_the_same_events_as_all() -> None:
    with split_log(many(), EvaluationConfig()) as every, split_log(many(), EvaluationConfig(test_users=3)) as sample:
        assert histories_in(every.parts.training) == histories_in(sample.parts.training)


def test_a_sample_larger_than_the_log_is_all_users() -> None:
    with split_log(many(5), EvaluationConfig(test_users=10, top_k=1)) as split:
        assert split.parts.counts.users_tested == 5
        assert split.parts.counts.users_not_tested == {}


TEMPORAL = {"protocol": "temporal", "top_k": 1}
REFUSED: list[tuple[Log, dict[str, Any], type[BatchrecError], str]] = [
    ({1: [(1, 1), (2, 2)], 2: [(1, 1)]}, {}, InputError, "no user can be tested; of 2 users: 2 (fewer than 3 events)"),
    (
        {1: [(1, 1), (2, 2), (1, 3)], 2: [(1, 1)]},
        {},
        InputError,
        "of 2 users: 1 (fewer than 3 events), 1 (last item seen before)",
    ),
    ({1: [(1, 1), (2, 2), (3, 3)]}, {"top_k": 1}, InputError, "1 user(s) in the training part; expected two or more"),
    (many(2), {"top_k": 10}, ConfigError, "--top-k 10: the training part holds 4 items. Pass 4 or less"),
    ({1: [], 2: []}, TEMPORAL, InputError, "no history holds an event"),
    (
        daily(10),
        TEMPORAL | {"cut": "2024-06-01"},
        InputError,
        "the log runs from 1970-01-01T00:00:00+00:00 to 1970-01-10T00:00:00+00:00; --cut 2024-06-01 is not within it",
    ),
    (daily(10), TEMPORAL | {"cut": "1970-01-01"}, InputError, "--cut 1970-01-01 is not within it"),
    (daily(10), TEMPORAL | {"cut": "1970-01-10T00:00:01"}, InputError, "is not within it"),
    (daily(7), TEMPORAL, InputError, "to 1970-01-07T00:00:00+00:00, all of it within the last 7 days. Pass fewer"),
    (
        {1: [(1, 0), (1, 9 * DAY)], 2: [(2, 0)], 3: [(3, 9 * DAY)]},
        TEMPORAL,
        InputError,
        "of 3 users: 1 (no event after the cut), 1 (no history before the cut), 1 (nothing new after the cut)",
    ),
]


@pytest.mark.parametrize(("log", "options", "error", "message"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_a_log_that_cannot_be_split_is_refused_with_counts(
    log: Log, options: dict[str, Any], error: type[BatchrecError], message: str
) -> None:
    with pytest.raises(error) as raised, split_log(log, EvaluationConfig(**options)):
        pass
    assert message in str(raised.value)


def test_a_moment_beyond_the_calendar_is_spelled_in_seconds() -> None:
    with (
        pytest.raises(InputError, match=f"from {-(10**15)} s to 1970-01-01T00:00:00"),
        split_log({1: [(1, -(10**15)), (2, 0)]}, EvaluationConfig("temporal", "1980-01-01")),
    ):
        pass


@pytest.mark.parametrize("is_text", [False, True])
def test_ids_keep_their_type(is_text: bool) -> None:
    log: Log = {
        str(user) if is_text else user: [(str(item) if is_text else item, moment) for item, moment in events]
        for user, events in many(3).items()
    }
    with split_log(log, EvaluationConfig(top_k=1)) as split:
        trained = histories_in(split.parts.training)
    assert trained == {user: list(events[:-1]) for user, events in log.items()}
