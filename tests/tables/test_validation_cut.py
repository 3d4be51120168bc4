"""The time that splits a log for validation, compared with plain loops over windows, users and events."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import TrainingConfig
from batchrec.errors import InputError
from batchrec.tables.queries import connect
from batchrec.tables.validation_cut import validation_cut
from tests.support.logs import Events, Log, write_log
from tests.support.models import examples

DAY = 86_400
NOW, AHEAD, NEVER = 1_700_000_000, 1_700_000_000 + DAY, 253_402_214_400
WINDOWS = (7, 14, 30, 60, 120, 240, 480, 960)


def qualifies(events: Events, cut: int, until: int, repeat_items: bool) -> bool:
    before = {item for item, moment in events if moment < cut}
    after = {item for item, moment in events if moment >= cut}
    return bool(before and (after if repeat_items else after - before)) and events[-1][1] < until


def plain_cut(log: Log, until: int, repeat_items: bool) -> int | None:
    times = [moment for events in log.values() for _, moment in events if moment < until]
    if not times:
        return None
    fitting = []
    for days in WINDOWS:
        cut = max(times) + 1 - days * DAY
        n_later = sum(moment >= cut for moment in times)
        n_before = [len({item for item, moment in events if moment < cut}) for events in log.values()]
        if n_later <= 0.2 * len(times) and max(n_before) >= 2:
            fitting.append((cut, sum(qualifies(events, cut, until, repeat_items) for events in log.values())))
    enough = [cut for cut, n_users in fitting if n_users >= 200]
    if enough:
        return max(enough)
    return fitting[-1][0] if fitting and fitting[-1][1] >= 30 else None


def cut_of(log: Log, until: int = AHEAD, config: TrainingConfig = TrainingConfig()) -> int | None:
    with tempfile.TemporaryDirectory() as folder, connect(threads=1) as con:
        return validation_cut(con, write_log(Path(folder, "log.parquet"), log), until, config)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Draw a few histories, each of which some users share, with events around the cuts and in the future."""
    ages = st.sampled_from([0, 6, 7, 8, 13, 14, 20, 29, 45, 100, 200, 300, 500, 1000])
    moment = st.builds(lambda days, seconds: NOW - days * DAY + seconds, ages, st.integers(-1, 1))
    log: dict[int, Events] = {}
    for _ in range(draw(st.integers(1, 5))):
        times = sorted(draw(st.lists(moment | st.sampled_from([NOW, NEVER]), max_size=7)))
        items = draw(st.lists(st.integers(1, 4), min_size=len(times), max_size=len(times)))
        for _ in range(draw(st.sampled_from([1, 15, 29, 30, 100, 199, 200]))):
            log[len(log)] = list(zip(items, times, strict=True))
    return log


@pytest.mark.usefixtures("one_duckdb")
@settings(max_examples=examples(80))
@given(logs(), st.booleans(), st.sampled_from([AHEAD, NEVER + 1]))
def test_the_cut_equals_that_of_plain_loops(log: Log, repeat_items: bool, until: int) -> None:
    assert cut_of(log, until, TrainingConfig(repeat_items=repeat_items)) == plain_cut(log, until, repeat_items)


def with_takers(n_users: int, ages: Sequence[int]) -> Log:
    """Return users with ten events 1,001 days ago and one at each age in days; all are of different items."""
    times = [NOW - 1001 * DAY] * 10 + [NOW - days * DAY for days in ages]
    return {user: list(enumerate(times)) for user in range(n_users)}


@pytest.mark.parametrize(
    ("log", "days"),
    [
        (with_takers(200, [0]), 7),
        (with_takers(199, [0]), 960),
        (with_takers(30, [0]), 960),
        (with_takers(29, [0]), None),
        # The window of 240 days holds more than 20 % of the events.
        (with_takers(30, [200, 130, 1]), 120),
        ({user: [(1, NOW + place) for place in range(9)] for user in range(300)}, None),
        ({}, None),
        ({1: [], 2: []}, None),
        ({user: [(user, NEVER)] for user in range(300)}, None),
    ],
    ids=["200 users", "199", "30", "29", "too many events", "at one time", "nobody", "no event", "all in the future"],
)
def test_the_window_is_the_shortest_with_enough_users(log: Log, days: int | None) -> None:
    newest = max((moment for events in log.values() for _, moment in events), default=0)
    assert cut_of(log) == (None if days is None else newest + 1 - days * DAY)


def test_future_events_do_not_move_the_cut() -> None:
    log = dict(with_takers(201, [0]))
    expected = cut_of(log)
    assert expected is not None
    log[0] = [*log[0], (99, NEVER)]
    assert cut_of(log) == expected


def test_last_items_need_no_cut() -> None:
    assert cut_of(with_takers(200, [0]), config=TrainingConfig(validate="last-item")) is None


def test_a_log_without_a_cut_cannot_be_validated_by_time() -> None:
    with pytest.raises(InputError, match=r"--validate temporal: .* Pass --validate last-item"):
        cut_of(with_takers(29, [0]), config=TrainingConfig(validate="temporal"))
