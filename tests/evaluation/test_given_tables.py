"""Tables of recommendations and of test items that users of evaluate pass."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import EvaluationConfig
from batchrec.errors import ConfigError, InputError
from batchrec.evaluation.given_tables import given_lists
from tests.support.logs import Log, SplitLog, split_log
from tests.support.models import examples

pytestmark = pytest.mark.usefixtures("one_duckdb")

K = 3
OPTIONS = EvaluationConfig(top_k=K)
# By leave-one-out, 1 and 2 are tested and the items 10 to 13 trained on; 14 and 15 are the test items.
NUMBERS: Log = {1: [(10, 0), (11, 1), (14, 2)], 2: [(12, 0), (13, 1), (15, 2)], 3: [(10, 0)]}
TEXTS: Log = {"u1": [("a", 0), ("b", 1), ("e", 2)], "u2": [("c", 0), ("d", 1), ("f", 2)], "u3": [("a", 0)]}
Row = tuple[Any, Any, Any]


def write_csv(folder: Path, columns: str, rows: Iterable[Sequence[Any]]) -> str:
    file = folder / "given.csv"
    file.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return str(file)


def read_lists(split: SplitLog, file: str) -> dict[Any, list[Any]]:
    """Return the list of each user in a given table; check that ranks have no gaps."""
    lists: dict[Any, list[Any]] = defaultdict(list)
    for batch in given_lists(split.con, file, split.lists_schema, K):
        assert batch.schema == split.lists_schema
        for row in batch.to_pylist():
            lists[row["user_id"]].append(row["item_id"])
            assert row["rank"] == len(lists[row["user_id"]])
    return dict(lists)


def lists_in(log: Log, rows: Iterable[Row]) -> dict[Any, list[Any]]:
    with TemporaryDirectory() as folder, split_log(log, OPTIONS) as split:
        return read_lists(split, write_csv(Path(folder), "user_id,item_id,rank", rows))


@st.composite
def given_rows(draw: st.DrawFn) -> list[Row]:
    """Rows in any order, with known and unknown users and items, and ranks that start and skip anywhere."""
    rows: list[Row] = [(1, 10, 0)]
    for user in draw(st.sets(st.integers(2, 5))):
        items = draw(st.lists(st.integers(8, 18), unique=True, max_size=5))
        ranks = draw(st.lists(st.integers(0, 30), unique=True, min_size=len(items), max_size=len(items)))
        rows += [(user, item, rank) for item, rank in zip(items, ranks, strict=True)]
    return draw(st.permutations(rows))


@settings(max_examples=examples(30))
@given(rows=given_rows())
def test_a_list_is_the_first_items_of_a_tested_user_by_rank(rows: list[Row]) -> None:
    ranked = sorted(rows, key=lambda row: row[2])
    expected = {user: [item for owner, item, _ in ranked if owner == user][:K] for user in (1, 2)}
    assert lists_in(NUMBERS, rows) == {user: items for user, items in expected.items() if items}


@pytest.mark.parametrize(
    ("log", "rows", "lists"),
    [
        (NUMBERS, [("1.0", " 10", 1), ("01", "15.0", "2.0")], {1: [10, 15]}),
        (TEXTS, [("u1 ", "b", 1), ("u1", " e", 2), ("u1", "new", 3)], {"u1": ["b", "e", "new"]}),
        ({user + " ": events for user, events in TEXTS.items()}, [("u1", "a", 1)], {"u1 ": ["a"]}),
        (
            {user: [(item + "  ", moment) for item, moment in events] for user, events in TEXTS.items()},
            [("u2", "f", 1), ("u2", "a", 2)],
            {"u2": ["f  ", "a  "]},
        ),
    ],
    ids=["integers as text", "blanks in the table", "users padded in the log", "items padded in the log"],
)
def test_ids_are_those_of_the_log_however_they_are_written(log: Log, rows: list[Row], lists: dict[Any, Any]) -> None:
    assert lists_in(log, rows) == lists


def test_columns_may_be_in_any_order_with_more_of_them(tmp_path: Path) -> None:
    table = {
        "score": pa.array([0.5, 0.25]),
        "Rank": pa.array([2.0, 1.0]),
        "ITEM_ID": pa.array([11, 12], pa.int32()),
        "user_id": pa.array(["1", "1"]),
    }
    pq.write_table(pa.table(table), tmp_path / "given.parquet")
    (tmp_path / "given.sql").write_text(f"from read_parquet('{tmp_path / 'given.parquet'}')", encoding="utf-8")
    with split_log(NUMBERS, OPTIONS) as split:
        for name in ("given.parquet", "given.sql"):
            assert read_lists(split, str(tmp_path / name)) == {1: [12, 11]}


COLUMNS = "user_id,item_id,rank"
REFUSED: list[tuple[str, list[Sequence[Any]], str]] = [
    (COLUMNS, [], "given.csv: holds no rows; expected user_id, item_id, rank for --recs"),
    ("user_id,item_id", [(1, 10)], "no column 'rank'"),
    (COLUMNS, [(1, 10, 1), (1, "ten", 2)], "--recs item_id 'ten'; expected an integer, as in the log"),
    (COLUMNS, [("guest", 10, 1)], "--recs user_id 'guest'; expected an integer, as in the log"),
    (COLUMNS, [(1, 10, "first")], "--recs rank 'first'; expected an integer"),
    (COLUMNS, [(1, 10, 1.5)], "--recs rank '1.5'; expected an integer"),
    (COLUMNS, [(1, 10, 1), (1, "", 2)], "1 of 2 rows have no item_id"),
    (COLUMNS, [(9, 8, 1), (9, 8, 2)], "--recs user_id '9' has item_id 8 in several rows; expected one"),
    (COLUMNS, [(9, 7, 1), (9, 8, 1)], "--recs user_id '9' has rank 1 in several rows; expected one"),
    (COLUMNS, [(3, 10, 1)], "for none of the 2 tested users; its users look like '3', the tested ones like 1"),
    (COLUMNS, [(1, 7, 1)], "has none of the log's items; its items look like 7, the log's like 10"),
]


@pytest.mark.parametrize(("columns", "rows", "message"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_a_table_that_cannot_be_compared_is_refused(
    columns: str, rows: list[Sequence[Any]], message: str, tmp_path: Path
) -> None:
    with split_log(NUMBERS, OPTIONS) as split, pytest.raises(InputError) as raised:
        read_lists(split, write_csv(tmp_path, columns, rows))
    assert message in str(raised.value)
    assert "given.csv" in str(raised.value)


def test_few_users_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    log = {user: [(user, 0), (user + 1, 1), (user + 2, 2)] for user in range(5)}
    with caplog.at_level(logging.INFO, "batchrec"):
        assert lists_in(log, [(0, 3, 1), (1, 3, 1)]) == {0: [3], 1: [3]}
        assert lists_in(log, [(0, 3, 1), (1, 3, 1), (2, 3, 1)]).keys() == {0, 1, 2}
    levels = {record.getMessage().split(": ")[-1][:24]: record.levelname for record in caplog.records}
    assert levels == {"lists for 2 of 5 tested ": "WARNING", "lists for 3 of 5 tested ": "INFO"}


def split_by(folder: Path, columns: str, rows: list[Sequence[Any]], log: Log, **options: Any) -> list[tuple[Any, ...]]:
    """Return the test items of a split of one's own."""
    config = EvaluationConfig("split", split=write_csv(folder, columns, rows), top_k=1, **options)
    with split_log(log, config) as split:
        return sorted(split.rows("test_items", "user_id, item_id"))


def test_test_items_may_be_padded_in_the_table_and_in_the_log(tmp_path: Path) -> None:
    log = {user + " ": [(item + "  ", moment) for item, moment in events] for user, events in TEXTS.items()}
    assert split_by(tmp_path, "item_id,day,user_id", [(" b", 5, "u1 ")], log) == [("u1 ", "b  ")]


def test_the_last_event_of_a_repeated_item_is_the_test(tmp_path: Path) -> None:
    log = {1: [(10, 0), (11, 1), (10, 2), (12, 3)], 2: [(11, 0), (12, 1)]}
    assert split_by(tmp_path, "user_id,item_id", [(1, 10)], log, keep_seen=True) == [(1, 10)]
    with pytest.raises(InputError, match=r"2 users: 1 \(no new test item\), 1 \(not in --split\)"):
        split_by(tmp_path, "user_id,item_id", [(1, 10)], log)


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("user_id,item_id", [], "given.csv: holds no rows; expected user_id, item_id for --split"),
        ("user_id,item", [(1, 14)], "no column 'item_id'"),
        ("user_id,item_id", [(1, "x")], "--split item_id 'x'; expected an integer, as in the log"),
        ("user_id,item_id", [(1, "")], "1 of 1 rows have no item_id"),
        (
            "user_id,item_id",
            [(1, 14), (1, 15), (4, 14)],
            "2 of 3 pairs of --split have no event in {log}, such as user_id '1' with item_id '15'",
        ),
        ("user_id,item_id", [(1, 10)], "no user can be tested; of 3 users: 2 (not in --split), 1 (no history before"),
    ],
)
def test_a_split_that_contradicts_the_log_is_refused(
    columns: str, rows: list[Sequence[Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        split_by(tmp_path, columns, rows, NUMBERS)
    before, _, after = message.partition("{log}")
    assert before in str(raised.value)
    assert after in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "split"}, "--protocol split: expected --split FILE with it"),
        ({"split": "s.csv"}, "--split s.csv: expected --protocol split with it"),
        (
            {"protocol": "split", "split": "s.csv", "cut": "2024-01-01"},
            "--cut 2024-01-01: expected --protocol temporal",
        ),
        ({"recs": ("r.csv", "q.csv", "r.csv")}, "--recs r.csv: expected each table once"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        EvaluationConfig(**options)
    assert message in str(raised.value)
