"""A future event stays in its history, but no report, evaluation, list or gate takes it for the end of the log."""

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import time

import pyarrow.parquet as pq
import pytest

from batchrec.config import EvaluationConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import InputError
from batchrec.nightly.gates.model import held_out_items
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.tables.log_end import ahead_from, iso_time, log_end
from batchrec.tables.queries import connect
from batchrec.training.corpus import read_corpus
from batchrec.training.holdout import hold_out
from tests.scoring.test_score import recs_of
from tests.support.logs import split_log, write_log
from tests.support.models import run_cli, trained_model
from tests.support.plain_rules import ITEMS, model, write_table

DAY = 86_400
# Warehouses write this date for "never ends".
NEVER = 253_402_214_400
FIRST = 1_700_000_000


# The end itself


def test_events_are_ahead_after_the_run_date_or_a_day_from_now() -> None:
    midnight = datetime(2024, 3, 2, tzinfo=UTC).timestamp()
    assert ahead_from(date(2024, 3, 1)) == midnight
    assert abs(ahead_from() - (time() + DAY)) < 60


@pytest.mark.parametrize(
    ("times", "expected"),
    [([], 500), ([100, 200], 500), ([100, NEVER], 500), ([500], 501), ([600, 900, NEVER], NEVER + 1)],
    ids=["no event", "all before", "one ahead", "at the moment", "all ahead"],
)
def test_a_log_ends_before_future_events_unless_all_are(times: list[int], expected: int, tmp_path: Path) -> None:
    sequences = write_log(tmp_path / "log.parquet", {1: [], 2: [(7, moment) for moment in times], 3: []})
    with connect() as con:
        assert log_end(con, sequences, 500) == expected


# build-sequences


def ratings(folder: Path, *rows: tuple[int, int, int]) -> str:
    """Write a log of user, item and time; times as text, because the unit of numbers is tested elsewhere."""
    spelled = [(user, item, iso_time(moment)) for user, item, moment in rows]
    return str(write_table(folder / "ratings.csv", "userId,movieId,timestamp", spelled))


def test_the_report_counts_future_events_and_names_the_latest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soon = int(time()) + DAY // 2
    rows = [(1, 7, FIRST), (1, 8, NEVER), (2, 9, NEVER - DAY), (3, 7, NEVER - 1), (3, 9, soon)]
    report = build_sequences([ratings(tmp_path, *rows)], SequencesConfig(), tmp_path / "sequences.parquet")
    assert report.ahead_of_now == 3
    assert report.oldest == "2023-11-14 22:13:20"
    # Another time zone can be half a day ahead.
    assert report.newest == str(datetime.fromtimestamp(soon, UTC).replace(tzinfo=None))
    assert "3 event(s) lie in the future, like user 1, item 8, 9999-12-31T00:00:00+00:00" in caplog.text
    assert caplog.text.count("WARNING") == 1
    times = {row["user_id"]: row["timestamps"] for row in pq.read_table(tmp_path / "sequences.parquet").to_pylist()}
    assert times == {1: [FIRST, NEVER], 2: [NEVER - DAY], 3: [soon, NEVER - 1]}


def test_a_log_without_future_events_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = build_sequences([ratings(tmp_path, (1, 7, FIRST))], SequencesConfig(), tmp_path / "sequences.parquet")
    assert (report.ahead_of_now, report.newest) == (0, "2023-11-14 22:13:20")
    assert caplog.text == ""


def test_newest_is_the_last_event_if_all_are_in_the_future(tmp_path: Path) -> None:
    rows = [(1, 7, NEVER), (2, 7, NEVER - DAY)]
    report = build_sequences([ratings(tmp_path, *rows)], SequencesConfig(), tmp_path / "sequences.parquet")
    assert (report.ahead_of_now, report.oldest, report.newest) == (2, "9999-12-30 00:00:00", "9999-12-31 00:00:00")


def test_future_events_outside_histories_are_not_counted(tmp_path: Path) -> None:
    rows = [(1, 7, iso_time(FIRST), 5), (1, 8, iso_time(NEVER), 1), (2, 9, iso_time(NEVER), 1)]
    file = write_table(tmp_path / "ratings.csv", "userId,movieId,timestamp,rating", rows)
    report = build_sequences([str(file)], SequencesConfig(min_rating=3.0), tmp_path / "sequences.parquet")
    assert (report.ahead_of_now, report.newest) == (0, "2023-11-14 22:13:20")


# evaluate


def daily(n_days: int) -> dict[int, list[tuple[int, int]]]:
    """Return four users with an event each midnight, one item per day."""
    return {user: [(day, FIRST + day * DAY) for day in range(n_days)] for user in (1, 2, 3, 4)}


def with_future(log: Mapping[int, list[tuple[int, int]]]) -> dict[int, list[tuple[int, int]]]:
    return {**log, 1: [*log[1], (50, NEVER)], 2: [*log[2], (51, NEVER - 1), (0, NEVER)], 9: [(52, NEVER)]}


PROTOCOLS = {
    "temporal": EvaluationConfig("temporal", top_k=1, test_days=3.0),
    "cut": EvaluationConfig("temporal", cut="2023-11-20", top_k=1),
    "leave-one-out": EvaluationConfig(top_k=1),
    "seen too": EvaluationConfig(top_k=1, keep_seen=True),
}


@pytest.mark.parametrize("config", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_future_events_are_neither_trained_nor_tested_on(
    config: EvaluationConfig, caplog: pytest.LogCaptureFixture
) -> None:
    tables = ("tested_users", "test_items", "training_events", "user_items")
    with split_log(daily(10), config) as plain:
        expected = {name: sorted(plain.con.table(name).fetchall()) for name in tables}
        cut, counts = plain.parts.cut, plain.parts.counts
    assert "WARNING" not in caplog.text
    with split_log(with_future(daily(10)), config) as split:
        assert {name: sorted(split.con.table(name).fetchall()) for name in tables} == expected
        assert split.parts.cut == cut
        assert split.parts.counts.test_items == counts.test_items
        # User 9 has no other event but still counts as a user.
        assert sum(split.parts.counts.users_not_tested.values()) == sum(counts.users_not_tested.values()) + 1
        assert NEVER not in [moment for times in split.rows("split", "timestamps") for moment in times[0]]
    assert "4 event(s) lie in the future, like user 1, item 50, 9999-12-31T00:00:00+00:00" in caplog.text


def test_a_cut_in_the_future_is_outside_the_log() -> None:
    with (
        pytest.raises(InputError, match=r"to 2023-11-23T22:13:20\+00:00; --cut 5000-01-01 is not within it"),
        split_log(with_future(daily(10)), EvaluationConfig("temporal", "5000-01-01", top_k=1)),
    ):
        pass


def test_a_log_entirely_in_the_future_is_evaluated_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    ahead = {user: [(item, moment + 9 * 10**9) for item, moment in events] for user, events in daily(10).items()}
    config = EvaluationConfig("temporal", test_days=3.0, top_k=1)
    with split_log(daily(10), config) as plain, split_log(ahead, config) as future:
        assert sorted(future.rows("test_items", "*")) == sorted(plain.rows("test_items", "*"))
    assert "WARNING" not in caplog.text


def test_one_future_event_does_not_reduce_the_tested_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # All twelve users have their last event, with a new item, in the last 15 days.
    rows = [(user, user + place, FIRST + (10 * place + user) * DAY) for user in range(12) for place in range(6)]
    ratings(tmp_path, *rows, (3, 2, NEVER))
    sequences = tmp_path / "sequences.parquet"
    assert run_cli("build-sequences", "--ratings", tmp_path / "ratings.csv", "--out", sequences) == 0
    assert "1 event(s) lie in the future" in capsys.readouterr().err
    newest = max(time for _, _, time in rows)
    with split_log(
        {
            row["user_id"]: list(zip(row["item_ids"], row["timestamps"], strict=True))
            for row in pq.read_table(sequences).to_pylist()
        },
        EvaluationConfig("temporal", test_days=15.0, top_k=1),
    ) as split:
        assert split.parts.cut == newest - 15 * DAY + 1
        assert split.parts.counts.users_tested == 12


# Held-out items of train and of the night's gates


def many(n_users: int = 40) -> dict[int, list[tuple[int, int]]]:
    """Return users with five different items each; every third user's last event is in the future."""
    return {
        user: [(user + place, NEVER if place == 4 and user % 3 == 0 else FIRST + place) for place in range(5)]
        for user in range(n_users)
    }


@pytest.mark.parametrize("most", [5, 100])
def test_train_and_gates_hold_out_the_same_items_and_no_future_ones(most: int, tmp_path: Path) -> None:
    sequences = write_log(tmp_path / "log.parquet", many())
    corpus = read_corpus(sequences, 3)
    split = hold_out(corpus.histories, most, corpus.holdout_users)
    item_ids = corpus.vocabulary.item_ids.take([index - 2 for index in split.held_out.later.items.tolist()]).to_pylist()
    with held_out_items(sequences, TrainingConfig(seed=3, validation_users=most)) as held_out:
        rows = held_out.con.table("held_out").order("user_id").fetchall()
    assert [user for _, user, *_ in rows if user % 3 == 0] == []
    assert [later for *_, later in rows] == [[item] for item in item_ids]
    # At most half of the 26 users whose last event is not in the future.
    assert len(rows) == min(most, 13)


def test_an_error_says_that_only_future_events_could_be_held_out(tmp_path: Path) -> None:
    log = {user: [(1, FIRST), (2 + user, NEVER)] for user in range(5)}
    corpus = read_corpus(write_log(tmp_path / "log.parquet", log), 0)
    with pytest.raises(InputError, match="ends in the future, so its last item cannot be held out"):
        hold_out(corpus.histories, 10, corpus.holdout_users)


def test_items_are_held_out_of_a_log_entirely_in_the_future(tmp_path: Path) -> None:
    log = {user: [(place, NEVER + place) for place in range(3)] for user in range(6)}
    corpus = read_corpus(write_log(tmp_path / "log.parquet", log), 0)
    assert sorted(corpus.holdout_users.tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("run_date", "expected"), [(None, 0.0), (date(2023, 11, 30), 0.0), (date(2023, 11, 24), 1.0)], ids=str
)
def test_events_after_the_run_date_are_not_among_the_newest(
    run_date: date | None, expected: float, tmp_path: Path
) -> None:
    # Known items, except unknown ones on the 24th and in the future.
    log: dict[int, list[tuple[int, int]]] = {
        user: [(ITEMS[user], FIRST), (ITEMS[user + 1], FIRST + DAY), (7, FIRST + 10 * DAY)] for user in range(4)
    }
    log |= {user: [(ITEMS[0], FIRST), (ITEMS[user], FIRST + 15 * DAY)] for user in range(10, 14)}
    log |= {user: [(ITEMS[1], FIRST), (8, NEVER)] for user in range(20, 25)}
    sequences = write_log(tmp_path / "log.parquet", log)
    with held_out_items(sequences, TrainingConfig(), run_date) as held_out:
        assert held_out.measure(trained_model(), ScoringConfig(device="cpu")).figures.unknown_share == expected


# Popular items


def test_popular_days_end_before_future_events(tmp_path: Path) -> None:
    now = int(time())
    log = {
        1: [(ITEMS[30], now - 5 * DAY)],
        2: [(ITEMS[30], now - 4 * DAY), (ITEMS[31], NEVER)],
        3: [(ITEMS[32], now - 40 * DAY), (ITEMS[31], NEVER)],
        4: [],
    }
    sequences = write_log(tmp_path / "log.parquet", log)
    for run_date in (None, str(datetime.now(UTC).date() + timedelta(days=1))):
        config = ScoringConfig(device="cpu", top_k=3, run_date=run_date)
        score(sequences, model(), config, tmp_path / "recs.parquet")
        rows = recs_of(tmp_path / "recs.parquet")[4]
        assert [(row["item_id"], row["source"]) for row in rows[:2]] == [
            (ITEMS[30], "popular"),
            (ITEMS[0], "popular_all_time"),
        ]


def test_times_beyond_the_calendar_are_shown_in_seconds(caplog: pytest.LogCaptureFixture) -> None:
    assert iso_time(0) == "1970-01-01T00:00:00+00:00"
    log = daily(10) | {9: [(52, 10**15)]}
    with caplog.at_level(logging.WARNING), split_log(log, EvaluationConfig(top_k=1)):
        assert f"user 9, item 52, {10**15} s" in caplog.text
