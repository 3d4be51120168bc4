"""Histories and reports of random events equal an independent computation in plain Python."""

import gzip
import math
import re
import statistics
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import batchrec.sequences.build
from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.sequences.build import build_sequences
from tests.support.models import examples
from tests.support.params import slow_except

COLUMNS = ["userId", "movieId", "rating", "timestamp"]


class Event(NamedTuple):
    user: Any
    item: Any
    rating: float
    time: int


@dataclass(frozen=True)
class Filters:
    repeats: Literal["last", "first", "all"] = "last"
    min_rating: float | None = None
    min_item_events: int = 1
    min_user_events: int = 1
    seen: Literal["all", "kept"] = "all"


def events(users: st.SearchStrategy[Any], items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Event]]:
    event = st.builds(Event, users, items, st.sampled_from([0.5, 2.0, 3.5, 5.0]), st.integers(-2, 4))
    # The last rows again: rows that are equal in every column are rare among random ones.
    return st.lists(event, min_size=1, max_size=30).map(lambda rows: [*rows, *rows[-3:]])


integer_events = events(st.integers(1, 4), st.sampled_from([-5, 0, 7, 10**12, 2**63 - 1]))
text_events = events(st.sampled_from(["007", "7", "ann", 'b"o,b']), st.sampled_from(["85123A", "71053", " x", "ü\n"]))
filters = st.builds(
    Filters,
    st.sampled_from(["last", "first", "all"]),
    st.none() | st.sampled_from([0.0, 2.0, 4.5]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["all", "kept"]),
)


def typed(rows: list[Event], file: str) -> list[Event]:
    """Return the rows with ids of the expected type: a column of a CSV is integers if every id is written as one."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    for place in (0, 1):
        if ".csv" in file and all(re.fullmatch("0|-?[1-9][0-9]*", str(value)) for value in columns[place]):
            columns[place] = [int(value) for value in columns[place]]
    return [Event(*values) for values in zip(*columns, strict=True)]


def expected_also_seen(rows: list[Event], chosen: Filters) -> dict[Any, set[Any]]:
    """Return the expected also_seen: per user with left-out events, the items without an event that is kept."""
    if chosen.seen == "kept":
        return {}
    kept, _ = expected(rows, chosen)
    all_users = {row.user for row in rows}
    users = all_users if chosen.min_user_events == 1 else set(kept)
    return {
        user: {row.item for row in rows if row.user == user} - {item for _, item in kept.get(user, [])}
        for user in users
    }


def expected(rows: list[Event], chosen: Filters) -> tuple[dict[Any, list[tuple[int, Any]]], dict[str, Any]]:
    """Return the sorted (time, item) pairs of each user who has any, and the counts of the report."""
    rated = [row for row in rows if chosen.min_rating is None or row.rating >= chosen.min_rating]
    pairs = [(row.user, row.time, row.item) for row in rated]
    if chosen.repeats != "all":
        # The last of equal keys stays, so a newest-first order keeps the first event.
        newest_last = sorted(pairs, key=lambda pair: pair[1], reverse=chosen.repeats == "first")
        pairs = list({(user, item): (user, time, item) for user, time, item in newest_last}.values())
    n_folded = len(rated) - len(pairs)
    per_item = Counter(item for _, _, item in pairs)
    known = [pair for pair in pairs if per_item[pair[2]] >= chosen.min_item_events]
    per_user = Counter(user for user, _, _ in known)
    kept = [pair for pair in known if per_user[pair[0]] >= chosen.min_user_events]
    histories: dict[Any, list[tuple[int, Any]]] = {}
    for user, time, item in kept:
        histories.setdefault(user, []).append((time, item))
    left_out = {
        "below --min-rating": len(rows) - len(rated),
        "below --min-item-events": len(pairs) - len(known),
        "below --min-user-events": len(known) - len(kept),
    }
    counts = {
        "rows_read": len(rows),
        "left_out": {reason: n for reason, n in left_out.items() if n},
        "duplicates_folded": n_folded,
        "events": len(kept),
        "items": len({item for _, _, item in kept}),
    }
    return {user: sorted(pairs, key=repr) for user, pairs in histories.items()}, counts


def expected_statistics(histories: dict[Any, list[tuple[int, Any]]]) -> dict[str, Any]:
    lengths = sorted(len(history) for history in histories.values())
    times = [time for history in histories.values() for time, _ in history]
    return {
        "shortest_history": lengths[0],
        "median_history": statistics.median(lengths),
        "mean_history": pytest.approx(statistics.mean(lengths)),
        "percentile_99_history": lengths[math.ceil(0.99 * len(lengths)) - 1],
        "longest_history": lengths[-1],
        "oldest": str(datetime.fromtimestamp(min(times), UTC).replace(tzinfo=None)),
        "newest": str(datetime.fromtimestamp(max(times), UTC).replace(tzinfo=None)),
    }


def write(rows: list[Event], file: Path) -> None:
    """Write ratings in the format of the file's suffix."""
    if file.suffix == ".parquet":
        pq.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], COLUMNS), file)
        return
    quoted = [",".join('"' + str(value).replace('"', '""') + '"' for value in row) for row in rows]
    text = "\n".join([",".join(COLUMNS), *quoted]).encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)


def build(files: list[Path], config: SequencesConfig, out: Path) -> tuple[pa.Table, dict[str, Any]]:
    # Random times in these tests are too small to recognise their unit.
    unit = "s" if config.timestamp_unit == "auto" else config.timestamp_unit
    report = build_sequences([str(file) for file in files], replace(config, timestamp_unit=unit), out)
    return pq.read_table(out), asdict(report)


@settings(max_examples=examples(30), deadline=None)
@given(integer_events | text_events, filters, st.sampled_from(["r.csv", "r.csv.gz", "r.parquet"]))
def test_histories_and_report_equal_an_independent_computation(rows: list[Event], chosen: Filters, name: str) -> None:
    histories, counts = expected(typed(rows, name), chosen)
    also_seen = expected_also_seen(typed(rows, name), chosen)
    without_history = sorted(set(also_seen) - set(histories))
    with TemporaryDirectory() as folder:
        file, out = Path(folder, name), Path(folder, "sequences.parquet")
        write(rows, file)
        config = SequencesConfig(**asdict(chosen))
        if not histories:
            with pytest.raises(InputError, match="no event is left"):
                build([file], config, out)
            return
        table, report = build([file], config, out)
    built = table.to_pylist()
    assert len(built) == len({row["user_id"] for row in built})
    assert all(row["timestamps"] == sorted(row["timestamps"]) for row in built)
    assert {
        row["user_id"]: sorted(zip(row["timestamps"], row["item_ids"], strict=True), key=repr) for row in built
    } == histories | {user: [] for user in without_history}
    assert [row["user_id"] for row in built] == sorted([*histories, *without_history])
    assert {row["user_id"]: row["also_seen"] for row in built if row["also_seen"]} == {
        user: sorted(items) for user, items in also_seen.items() if items
    }
    assert (report["users"], report["users_without_history"]) == (len(built), len(without_history))
    assert report["also_seen"] == sum(map(len, also_seen.values()))
    assert {name: report[name] for name in counts} == counts
    assert {name: report[name] for name in expected_statistics(histories)} == expected_statistics(histories)
    assert report["rows_read"] == report["events"] + sum(report["left_out"].values()) + report["duplicates_folded"]


@settings(max_examples=examples(8), deadline=None)
@given(integer_events | text_events, st.sampled_from(["last", "first", "all"]))
@example([Event(1, item, 3.0, 0) for item in range(12)], "all")
def test_a_history_does_not_depend_on_rows_files_formats_threads_or_memory(
    rows: list[Event], repeats: Literal["last", "first", "all"]
) -> None:
    # Text that spells an integer stays text in a Parquet file, so files with text ids are all CSV here.
    middle = "c.parquet" if isinstance(rows[0].user, int) else "c.csv"
    with TemporaryDirectory() as folder:
        out = Path(folder, "sequences.parquet")
        one, several = Path(folder, "a.csv"), [Path(folder, name) for name in ("b.csv", middle, "d.csv.gz")]
        write(rows, one)
        for number, file in enumerate(several):
            write(rows[number::3][::-1], file)
        wanted, _ = build([one], SequencesConfig(repeats=repeats, threads=2), out)
        sequences, _ = build(several[::-1], SequencesConfig(repeats=repeats, threads=1, memory_limit="100MB"), out)
    assert sequences.equals(wanted)


def _tied_events(n_users: int) -> list[Event]:
    return [Event(user, item, 3.0, 0) for user in range(n_users) for item in range(100, 150)]


def test_ties_are_not_ordered_by_item_and_differ_per_user(tmp_path: Path) -> None:
    write(_tied_events(2), tmp_path / "r.csv")
    table, _ = build([tmp_path / "r.csv"], SequencesConfig(), tmp_path / "out")
    one, other = table["item_ids"].to_pylist()
    assert sorted(one) == sorted(other) == list(range(100, 150))
    assert one != other
    for history in (one, other):
        n_rising = sum(item < next_item for item, next_item in pairwise(history))
        assert 15 < n_rising < 34


def test_events_within_a_second_are_ordered_by_their_fractions(tmp_path: Path) -> None:
    rows = [Event(1, item, 3.0, 1_600_000_000_999 - item) for item in range(20)]
    write(rows, tmp_path / "r.csv")
    table, _ = build([tmp_path / "r.csv"], SequencesConfig(timestamp_unit="ms"), tmp_path / "out")
    assert table["item_ids"].to_pylist() == [list(range(19, -1, -1))]
    assert set(table["timestamps"].to_pylist()[0]) == {1_600_000_000}


def test_histories_that_span_batches_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    # User 5's history is longer than two batches; most others are within one.
    users = [5] * 5000 + rng.integers(300, size=5000).tolist()
    times = rng.integers(1000, size=10_000).tolist()
    rows = [Event(user, item, 3.0, time) for item, (user, time) in enumerate(zip(users, times, strict=True))]
    write(rows, tmp_path / "r.parquet")
    whole, _ = build([tmp_path / "r.parquet"], SequencesConfig(), tmp_path / "out")
    monkeypatch.setattr(batchrec.sequences.build, "BATCH_EVENTS", 2048)
    table, _ = build([tmp_path / "r.parquet"], SequencesConfig(), tmp_path / "out")
    assert pq.ParquetFile(tmp_path / "out").num_row_groups > 1
    assert table.equals(whole)
    histories, _ = expected(rows, Filters())
    times = zip(table["user_id"].to_pylist(), table["timestamps"].to_pylist(), strict=True)
    assert dict(times) == {user: sorted(time for time, _ in history) for user, history in histories.items()}


def test_left_out_events_may_span_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    # User 5 has more low ratings than two batches hold; users from 300 on have only low ratings.
    users = [5] * 5000 + rng.integers(400, size=5000).tolist()
    stars = [
        1.0 if user >= 300 or chance < 0.8 else 4.0 for user, chance in zip(users, rng.random(10_000), strict=True)
    ]
    items = rng.integers(20_000, size=10_000).tolist()
    rows = [Event(user, item, rating, 0) for user, item, rating in zip(users, items, stars, strict=True)]
    write(rows, tmp_path / "r.parquet")
    monkeypatch.setattr(batchrec.sequences.build, "BATCH_EVENTS", 2048)
    table, report = build([tmp_path / "r.parquet"], SequencesConfig(min_rating=3.0), tmp_path / "out")
    also_seen = dict(zip(table["user_id"].to_pylist(), table["also_seen"].to_pylist(), strict=True))
    assert also_seen == {user: sorted(seen) for user, seen in expected_also_seen(rows, Filters(min_rating=3.0)).items()}
    assert len(also_seen[5]) > 2048
    assert report["users_without_history"] == sum(not items for items in table["item_ids"].to_pylist()) >= 90


TIGHT = {"all": {}, "some left out": {"min_rating": 3.0, "min_item_events": 30}}


@pytest.mark.parametrize("options", slow_except(TIGHT, "some left out"))
def test_a_tight_memory_limit_changes_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        Event(user, item, 1.0 + item % 5, time)
        for user, item, time in rng.integers([3000, 3000, 50], size=(200_000, 3)).tolist()
    ]
    write(rows, tmp_path / "r.parquet")
    wanted, _ = build([tmp_path / "r.parquet"], SequencesConfig(threads=1, **options), tmp_path / "out")
    config = SequencesConfig(threads=1, memory_limit="16MB", **options)
    sequences, _ = build([tmp_path / "r.parquet"], config, tmp_path / "out")
    assert sequences.equals(wanted)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "r.parquet"]
