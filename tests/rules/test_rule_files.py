from dataclasses import asdict, replace
from datetime import date, datetime, tzinfo
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig, SequencesConfig
from tests.scoring.test_score import recs_of
from tests.support.models import run_cli, write_sequences
from tests.support.plain_rules import ITEMS, model, write_table

# Option, text of the table, and parts of the error.
BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "no item column": (
        "--block",
        "id\n1\n",
        ["no column 'item_id'", "found id", "--block FILE with the column item_id"],
    ),
    "no user column": ("--candidates", "item_id\n1\n", ["no column 'user_id'"]),
    "empty file": ("--allow", "", ["the file is empty"]),
    "nothing allowed": ("--allow", "item_id\n", ["holds no rows"]),
    "no candidates": ("--candidates", "user_id,item_id\n", ["holds no rows"]),
    "no item": ("--block", "item_id,x\n1000,a\n,b\n", ["1 of 2 rows have no item_id"]),
    "no user": ("--block-for-user", "user_id,item_id\n,1000\n", ["1 of 1 rows have no user_id"]),
    "no factor": ("--boost", "item_id,factor\n1000,\n", ["1 of 1 rows have no factor"]),
    "factor in words": ("--boost", "item_id,factor\n1000,two\n", ["factor 'two' of item_id 1000", "a number above 0"]),
    "factor 0": ("--boost", "item_id,factor\n1000,0\n", ["factor '0' of item_id 1000"]),
    "factor below 0": ("--boost", "item_id,factor\n1001,-2\n", ["factor '-2' of item_id 1001"]),
    "endless factor": ("--boost", "item_id,factor\n1001,1e999\n", ["factor '1e999' of item_id 1001"]),
    "two factors": ("--boost", "item_id,factor\n1001,2\n1001.0,3\n", ["item_id 1001 has 2 rows"]),
    "position 0": ("--pins", "item_id,position\n1001,0\n", ["position '0' of item_id 1001", "from 1 to --top-k 10"]),
    "position 11": ("--pins", "item_id,position\n1001,11\n", ["position '11'"]),
    "position 1.5": ("--pins", "item_id,position\n1001,1.5\n", ["position '1.5'"]),
    "two pins in one place": ("--pins", "item_id,position\n1001,1\n1002,1\n", ["position 1 has 2 rows"]),
    "an item pinned twice": ("--pins", "item_id,position\n1001,1\n1001,2\n", ["item_id 1001 has 2 rows"]),
    "no date": ("--block", "item_id,valid_from\n1001,soon\n", ["valid_from 'soon' of item_id 1001", "an ISO date"]),
    "a row that is never valid": (
        "--block",
        "item_id,valid_from,valid_to\n1001,2024-05-01,2024-05-01\n1002,2024-06-01,2024-05-31\n",
        ["valid_from '2024-06-01' of item_id 1002; expected a day that is not after valid_to"],
    ),
    "no such day": ("--allow", "item_id,valid_to\n1001,2024-02-30\n", ["valid_to '2024-02-30'"]),
    "two segments": ("--segments", "user_id,segment\n1,a\n1,b\n", ["user_id 1 has 2 rows"]),
    "no segment": ("--segments", "user_id,segment\n1,\n", ["1 of 1 rows have no segment"]),
    "no segment column": ("--segments", "user_id,country\n1,a\n", ["no column 'segment'"]),
    "ragged": ("--boost", "item_id,factor\n1001\n1002,3\n", ["line 2", "malformed", "Fix the table of --boost"]),
}


def score_with(folder: Path, *options: object) -> int:
    sequences = write_sequences(folder / "sequences.parquet", {1: ITEMS[:3], 2: []})
    where = ("--sequences", sequences, "--model", model(), "--out", folder / "recs.parquet", "--device", "cpu")
    return run_cli("score", *where, *options)


@pytest.mark.parametrize(("option", "text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_table_is_named(
    option: str, text: str, message: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    assert score_with(tmp_path, option, tmp_path / "table.csv") == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("batchrec: error:")]
    assert "table.csv" in line
    assert all(part in line for part in message), line
    assert not (tmp_path / "recs.parquet").exists()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select 1 as id", "no column 'item_id'"),
        ("select 1 as item_id; select 2", "expected one SELECT"),
        ("drop table x", "expected one SELECT"),
        ("select * from nowhere", "nowhere"),
    ],
)
def test_an_invalid_query_is_named(
    query: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "block.sql").write_text(query, encoding="utf-8")
    assert score_with(tmp_path, "--block", tmp_path / "block.sql") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--run-date", "2024-02-30"), "--run-date 2024-02-30: expected a date like 2024-06-01"),
        (("--run-date", "yesterday"), "--run-date yesterday"),
        (("--run-date", "0001-01-01", "--seen", "90d"), "--run-date 0001-01-01"),
        (("--diversity", "1.5"), "--diversity 1.5: expected a number from 0 to 1"),
        (("--max-per-category", "2"), "both or none"),
        (("--category-column", "genre"), "both or none"),
        (("--category-column", "genre", "--max-per-category", "2"), "--items"),
        (("--max-per-category", "0"), "1 or more"),
        (("--popular-days", "0"), "a number from 1 to 1000000"),
    ],
)
def test_invalid_options_are_refused(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score_with(tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_the_date_stays_the_same_past_midnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = iter(range(1, 30))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2024, 6, next(days), tzinfo=tz)

    monkeypatch.setattr("batchrec.config.run_date.datetime", Clock)
    # Each item may be recommended only on one day.
    rows = [(item, f"2024-06-{day:02}", f"2024-06-{day:02}") for day, item in enumerate(ITEMS[3:23], 1)]
    allow = write_table(tmp_path / "allow.csv", "item_id,valid_from,valid_to", rows)
    assert score_with(tmp_path, "--allow", allow) == 0
    assert {row["item_id"] for rows in recs_of(tmp_path / "recs.parquet").values() for row in rows} == {ITEMS[3]}


@pytest.mark.parametrize("of", [ScoringConfig, SequencesConfig])
def test_asking_a_config_for_its_night_leaves_it_equal(
    of: type[ScoringConfig | SequencesConfig],
) -> None:
    asked = of(run_date="2024-06-01")
    assert asked.night == date(2024, 6, 1)
    assert asked == of(run_date="2024-06-01")
    assert "night" not in asdict(asked)
    assert replace(asked, run_date="2024-06-02").night == date(2024, 6, 2)


def test_a_missing_category_column_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = write_table(tmp_path / "movies.csv", "movieId,title", [(1000, "One")])
    options = ("--items", catalogue, "--category-column", "genre", "--max-per-category", 2)
    assert score_with(tmp_path, *options) == 3
    assert "no column 'genre'" in capsys.readouterr().err
    (tmp_path / "movies.csv").write_text("movieId,title,genre\n1000,One,\n")
    assert score_with(tmp_path, *options) == 3
    assert "holds no genre" in capsys.readouterr().err


def test_unknown_items_and_users_in_tables_do_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tables: dict[str, tuple[str, list[tuple[object, ...]]]] = {
        "block": ("item_id", [("abc",), (5,), (1010,)]),
        "allow": ("item_id", [("abc",), *((item,) for item in ITEMS)]),
        "boost": ("item_id,factor", [("abc", 2), (6, 2), (1011, 1)]),
        "block-for-user": ("user_id,item_id", [("zoe", 1001), (77, 1002), (1, "abc")]),
    }
    options = []
    for name, (header, rows) in tables.items():
        options += [f"--{name}", write_table(tmp_path / f"{name}.csv", header, rows)]
    with caplog.at_level("INFO", "batchrec"):
        assert score_with(tmp_path, *options, "--top-k", 36) == 0
    assert len(recs_of(tmp_path / "recs.parquet")[1]) == 36
    assert "--block: the model knows 1 of 3 items" in caplog.text


def test_a_table_may_be_parquet_of_floats_and_dates(tmp_path: Path) -> None:
    days = pa.array([None, 0], pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"item_id": [1010.0, 1011.0], "valid_to": days}), tmp_path / "block.parquet")
    assert score_with(tmp_path, "--block", tmp_path / "block.parquet", "--top-k", 36) == 0
    recommended = {row["item_id"] for row in recs_of(tmp_path / "recs.parquet")[1]}
    assert recommended == set(ITEMS[3:]) - {1010}
