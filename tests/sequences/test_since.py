"""--since: older events are left out and counted; partitions before it are not read."""

import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from batchrec.config import SequencesConfig
from batchrec.errors import ConfigError
from tests.conftest import BuildSequences
from tests.support.log_files import DAY, fails, log, write

pytestmark = pytest.mark.usefixtures("detected_unit")

MIDNIGHT = 1_714_521_600  # 2024-05-01T00:00:00Z


@pytest.mark.parametrize(
    ("since", "day"),
    [("90d", "2024-03-03"), ("1d", "2024-05-31"), ("2w", "2024-05-18"), ("2024-02-29", "2024-02-29"), (None, None)],
)
def test_since_is_an_age_at_the_run_date_or_a_date(since: str | None, day: str | None) -> None:
    config = SequencesConfig(since=since, run_date="2024-06-01")
    assert config.since_day == (None if day is None else date.fromisoformat(day))


@pytest.mark.parametrize("since", ["", "90", "0d", "-1d", "3m", "1.5d", "99999w", "2024-02-30", "20240229", "90D"])
def test_any_other_since_is_refused(since: str) -> None:
    with pytest.raises(ConfigError, match=r"--since .*: expected days like 90d, weeks like 12w, or a date"):
        SequencesConfig(since=since)


def test_a_run_date_from_which_no_age_counts_back_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--run-date 0001-01-01: expected a date like 2024-06-01, after 1970"):
        SequencesConfig(since="90d", run_date="0001-01-01")


def test_an_event_at_midnight_of_the_day_is_kept(build: BuildSequences) -> None:
    log(f"1,2,{MIDNIGHT - 1}", f"1,3,{MIDNIGHT}", f"2,4,{MIDNIGHT - DAY}")
    for since in ("2024-05-01", "31d"):
        outcome = build("--ratings", "ratings.csv", "--since", since, "--run-date", "2024-06-01")
        assert outcome.histories == {1: [3]}
        assert outcome.report["left_out"] == {"before --since": 2}
        assert outcome.report["rows_read"] == 3
    fails(build("--ratings", "ratings.csv", "--since", "2024-05-02"), "no event is left", "3 (before --since)")


@pytest.mark.parametrize("seen", ["all", "kept"])
def test_an_older_event_does_not_count_as_seen(build: BuildSequences, seen: str) -> None:
    write("ratings.csv", f"userId,movieId,timestamp,rating\n1,2,{MIDNIGHT - 1},1\n1,3,{MIDNIGHT},5\n1,4,{MIDNIGHT},1\n")
    outcome = build("--ratings", "ratings.csv", "--since", "2024-05-01", "--min-rating", "3", "--seen", seen)
    assert [(row["item_ids"], row["also_seen"]) for row in outcome.rows] == [([3], [4] if seen == "all" else [])]
    assert outcome.report["left_out"] == {"before --since": 1, "below --min-rating": 1}


def test_an_older_row_that_cannot_be_used_is_a_bad_row(build: BuildSequences) -> None:
    log(f",2,{MIDNIGHT - 1}", f"1,3,{MIDNIGHT}", f"1,5,{MIDNIGHT - 1}")
    outcome = build("--ratings", "ratings.csv", "--since", "2024-05-01", "--max-bad-rows", "1")
    assert (outcome.histories, outcome.report["rejected"]) == ({1: [3]}, {"no user": 1})
    assert outcome.report["left_out"] == {"before --since": 1}


def test_histories_equal_those_of_a_plain_loop(build: BuildSequences) -> None:
    draw = random.Random(3)  # noqa: S311
    rows = [
        (draw.randrange(20), draw.randrange(15), MIDNIGHT + draw.randrange(-5 * DAY, 5 * DAY), draw.randrange(1, 6))
        for _ in range(2000)
    ]
    write("ratings.csv", "userId,movieId,timestamp,rating\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    options = ("--min-rating", "3", "--min-item-events", "41", "--repeats", "all")
    outcome = build("--ratings", "ratings.csv", "--since", "2024-05-01", *options)

    recent = [row for row in rows if row[2] >= MIDNIGHT]
    liked = [row for row in recent if row[3] >= 3]
    n_events = {item: sum(row[1] == item for row in liked) for item in range(15)}
    kept = [row for row in liked if n_events[row[1]] >= 41]
    items: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for user, item, moment, _ in kept:
        items[user].append((moment, item))
    assert {row["user_id"]: sorted(zip(row["timestamps"], row["item_ids"], strict=True)) for row in outcome.rows} == {
        user: sorted(pairs) for user, pairs in items.items()
    }
    assert {row["user_id"]: set(row["also_seen"]) for row in outcome.rows} == {
        user: {row[1] for row in recent if row[0] == user} - {item for _, item in pairs}
        for user, pairs in items.items()
    }
    assert 0 < len(kept) < len(liked) < len(recent) < len(rows)
    report = outcome.report
    assert report["left_out"]["before --since"] == len(rows) - len(recent)
    assert report["rows_read"] == len(rows) == report["events"] + sum(report["left_out"].values())


@pytest.mark.parametrize("spelled", ["%Y-%m-%d", "%Y%m%d", "%Y-%m-%d %H"])
def test_partitions_before_it_are_not_read(build: BuildSequences, spelled: str) -> None:
    first = datetime(2024, 4, 28, tzinfo=UTC)
    for number in range(6):
        folder = f"log/dt={(first + timedelta(days=number)).strftime(spelled)}"
        # An older file that was read would end the run.
        write(f"{folder}/a.csv", f"userId,movieId\n1,{number}\n" if number > 2 else b"PK\x03\x04 no table")
    Path("log/dt=__HIVE_DEFAULT_PARTITION__").mkdir()
    write("log/dt=__HIVE_DEFAULT_PARTITION__/a.csv", "userId,movieId\n1,99\n")
    options = ["--timestamp-format", "%Y%m%d"] if spelled == "%Y%m%d" else []
    options += ["--ratings", "log", "--timestamp-column", "dt", "--max-bad-rows", "1"]
    outcome = build(*options, "--since", "2024-05-01")
    assert outcome.histories == {1: [3, 4, 5]}, outcome.stderr
    assert outcome.report["rejected"] == {"no time": 1}
    assert outcome.report["left_out"] == {}
    Path("log/dt=__HIVE_DEFAULT_PARTITION__/a.csv").unlink()
    fails(build(*options, "--since", "2024-06-01"), "all 6 files are of 2024-05-03 or older, before --since 2024-06-01")


def test_numbers_in_paths_and_other_columns_are_compared_row_by_row(build: BuildSequences) -> None:
    write(f"log/timestamp={MIDNIGHT - 1}/a.csv", "userId,movieId\n1,2\n")
    write(f"log/timestamp={MIDNIGHT}/dt=2020-01-01/a.csv", "userId,movieId\n1,3\n")
    outcome = build("--ratings", "log", "--since", "2024-05-01")
    assert (outcome.histories, outcome.report["left_out"]) == ({1: [3]}, {"before --since": 1})


def test_the_rows_of_a_query_are_left_out_too(build: BuildSequences) -> None:
    rows = f"(1, 2, {MIDNIGHT - 1}), (1, 3, {MIDNIGHT})"
    write("q.sql", f"from (values {rows}) as events (user_id, item_id, timestamp)")
    outcome = build("--query", "q.sql", "--since", "2024-05-01")
    assert (outcome.histories, outcome.report["left_out"]) == ({1: [3]}, {"before --since": 1}), outcome.stderr
