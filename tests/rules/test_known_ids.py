"""A rule table without any effect is an error, a table with little effect a warning that shows two ids."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.model.directory import write_manifest
from batchrec.model.vocabulary import Vocabulary
from tests.scoring.test_score import recs_of
from tests.support.models import CONFIG, run_cli, small_encoder, write_sequences
from tests.support.plain_rules import ITEMS, model, write_table
from tests.support.shared import made_once, scratch, write_exported

Rows = Sequence[Sequence[object]]
HISTORIES: Mapping[int, Sequence[int]] = {1: ITEMS[:3], 2: [*ITEMS[4:8], 7], 3: [8], 4: ITEMS[9:12]}
TABLES = {
    "allow": "item_id",
    "block": "item_id",
    "boost": "item_id,factor",
    "pins": "item_id,position",
    "block-for-user": "user_id,item_id",
    "candidates": "user_id,item_id",
    "segments": "user_id,segment",
}


def scored(folder: Path, option: str, rows: Rows, *options: object, header: str = "") -> int:
    """Score with one rule table."""
    sequences = write_sequences(folder / "sequences.parquet", HISTORIES)
    table = write_table(folder / f"{option}.csv", header or TABLES[option], rows)
    where = ("--sequences", sequences, "--model", model(), "--out", folder / "recs.parquet", "--device", "cpu")
    return run_cli("score", *where, f"--{option}", table, *options)


@pytest.mark.parametrize("option", TABLES)
def test_a_table_without_rows_is_an_error(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scored(tmp_path, option, []) == 3
    printed = capsys.readouterr().err
    assert f"{option}.csv: holds no rows" in printed
    assert f"for --{option}" in printed
    assert not (tmp_path / "recs.parquet").exists()
    assert scored(tmp_path, option, [], "--allow-empty-rules") == 0


UNKNOWN: dict[str, tuple[str, Rows, str]] = {
    "allowed items": ("allow", [(5,), (6,)], "the model knows 0 of 2 items; unknown: '5'; known ones look like '1000'"),
    "blocked items": ("block", [("x",)], "the model knows 0 of 1 items; unknown: 'x'"),
    "boosted items": ("boost", [(5, 2)], "the model knows 0 of 1 items; unknown: '5'"),
    "pins": ("pins", [(5, 1)], "none of the 1 items of --pins is known, such as '5'"),
    "items of users": ("block-for-user", [(1, 5)], "the model knows 0 of 1 items; unknown: '5'"),
    "users": (
        "block-for-user",
        [("A1", 1000)],
        "0 of 1 users are in the histories; unknown: 'A1'; known ones look like",
    ),
    "users of candidates": ("candidates", [(91, 1000), (92, 1000)], "0 of 2 users are in the histories; unknown: '91'"),
    "users of segments": ("segments", [(91, "dk")], "0 of 1 users are in the histories; unknown: '91'"),
}


@pytest.mark.parametrize(("option", "rows", "expected"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_table_without_a_known_id_is_an_error(
    option: str, rows: Rows, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(tmp_path, option, rows) == 3
    printed = capsys.readouterr().err
    assert f"{option}.csv: " in printed
    assert expected in printed
    assert "--allow-empty-rules" in printed
    assert scored(tmp_path, option, rows, "--allow-empty-rules") == 0
    assert expected in capsys.readouterr().err


def test_fewer_than_half_known_ids_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "batchrec"):
        assert scored(tmp_path, "block", [(1000,), (5,), (6,)]) == 0
        assert scored(tmp_path, "allow", [(1000,), (1020,), (5,), (6,)]) == 0
        assert scored(tmp_path, "block-for-user", [(1, 1000), (91, 1000), (92, 1000)]) == 0
    logged = [(record.levelname, record.getMessage()) for record in caplog.records if "rules" in record.name]
    assert logged == [
        ("WARNING", "--block: the model knows 1 of 3 items; unknown: '5'; known ones look like '1001'"),
        ("INFO", "--allow: the model knows 2 of 4 items"),
        ("WARNING", "--block-for-user: 1 of 3 users are in the histories; unknown: '91'; known ones look like '2'"),
    ]


def test_items_of_the_log_count_as_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "batchrec"):
        assert scored(tmp_path, "block", [(7,), (8,), (5,)]) == 0
    assert "INFO" in {record.levelname for record in caplog.records}
    assert "--block: the model knows 0 of 3 items, the histories 2 more" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert 8 not in {row["item_id"] for rows in recs_of(tmp_path / "recs.parquet").values() for row in rows}


def test_scored_users_without_a_history_count_as_known(tmp_path: Path) -> None:
    segments = write_table(tmp_path / "people.csv", "user_id,segment", [(1, "dk"), (91, "dk")])
    assert scored(tmp_path, "candidates", [(91, 1000)], "--segments", segments) == 0
    listed = write_table(tmp_path / "listed.csv", "user_id", [(92,)])
    assert scored(tmp_path, "candidates", [(92, 1000)], "--users", listed) == 0
    assert list(recs_of(tmp_path / "recs.parquet")) == [92]


def test_a_user_list_with_mostly_new_users_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = write_table(tmp_path / "listed.csv", "user_id", [(1,), (91,), (92,)])
    assert scored(tmp_path, "block", [(1000,)], "--users", listed) == 0
    assert "--users: 1 of 3 users are in the histories; unknown: '91'; known ones look like '2'" in caplog.text


def test_a_table_without_a_row_valid_today_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = {"header": "item_id,valid_to"}
    assert scored(tmp_path, "block", [(1000, "2020-01-01")], "--run-date", "2024-06-01", **old) == 0
    assert "--block: none of its 1 rows is valid on 2024-06-01" in caplog.text


PINS: dict[str, tuple[Rows, str, int]] = {
    "next to a known one": ([(1000, 1), (55, 2)], "--pins: 1 of 2 items are in no history, model or catalogue", 0),
    "of the log": ([(7, 1)], "", 0),
    "of the catalogue": ([(77, 1)], "", 0),
    "known nowhere": ([(55, 1)], "none of the 1 items of --pins is known", 3),
}


@pytest.mark.parametrize(("rows", "expected", "code"), PINS.values(), ids=PINS.keys())
def test_a_pin_must_be_known_to_model_log_or_catalogue(
    rows: Rows, expected: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = write_table(tmp_path / "movies.csv", "movieId,title", [(1000, "Old"), (77, "New")])
    assert scored(tmp_path, "pins", rows, "--items", catalogue) == code
    printed = capsys.readouterr().err
    assert expected in printed
    warnings = [line for line in printed.splitlines() if "WARNING" in line and "has titles for" not in line]
    assert bool(warnings) == (code == 0 and expected != "")


def articles() -> tuple[Path, Path]:
    """A model of the articles 00100 to 00139, and histories with these articles."""

    def make(folder: Path) -> None:
        folder.mkdir()
        names = [f"{number:05}" for number in range(100, 140)]
        encoder = small_encoder(42)
        write_exported(encoder, folder)
        write_manifest(
            folder, Vocabulary(pa.array(names), pa.array(range(80, 40, -1)).to_numpy()), encoder.shape, CONFIG, {}
        )

    histories = {"ann": ["00100", "00101"], "Bob": ["00102", "00999"], "0007": ["00103"]}
    sequences = write_sequences(scratch() / "articles.parquet", histories, pa.string(), pa.string())
    return made_once("articles", make), sequences


def scored_articles(folder: Path, option: str, rows: Rows) -> int:
    chosen, sequences = articles()
    table = write_table(folder / f"{option}.csv", TABLES.get(option, "user_id"), rows)
    where = ("--sequences", sequences, "--model", chosen, "--out", folder / "recs.parquet", "--device", "cpu")
    return run_cli("score", *where, f"--{option}", table)


ALIKE: dict[str, tuple[str, Rows, str]] = {
    "zeros that a spreadsheet took": ("block", [(104,), (100,)], "unknown: '100'; known ones look like '00100'"),
    "a float": ("allow", [("00101.0",)], "unknown: '00101.0'; known ones look like '00101'"),
    "a pin": ("pins", [("00100", 1), (999, 2)], "item_id '999' is not known, but the histories have '00999'"),
    "a pin with a character without width": ("pins", [("00101\u200b", 1)], "but the histories have '00101'"),
    "users in capitals": ("block-for-user", [("ANN", "00100")], "unknown: 'ANN'; known ones look like 'ann'"),
    "zeros of users": ("candidates", [(7, "00100")], "unknown: '7'; known ones look like '0007'"),
}


@pytest.mark.parametrize(("option", "rows", "expected"), ALIKE.values(), ids=ALIKE.keys())
def test_the_error_shows_a_similar_known_id(
    option: str, rows: Rows, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored_articles(tmp_path, option, rows) == 3
    assert expected in capsys.readouterr().err


PARTLY: dict[str, tuple[str, Rows, str]] = {
    "items": ("block", [("00100",), ("00102",), (104,)], "unknown: '104'; known ones look like '00104'"),
    "allowed": ("allow", [("00100",), ("00102",), ("new",), (104,)], "unknown: '104'; known ones look like '00104'"),
    "users": ("block-for-user", [("ann", "00100"), (7, "00100")], "unknown: '7'; known ones look like '0007'"),
    "no width": (
        "block",
        [("00100",), ("00102",), ("00104\u200b",)],
        r"unknown: '00104\u200b'; known ones look like '00104'",
    ),
    "users without width": (
        "users",
        [("ann",), ("Bob",), ("00\u200d07",)],
        r"unknown: '00\u200d07'; known ones look like '0007'",
    ),
    "listed": ("users", [("ann",), ("Bob",), (7,)], "--users: 2 of 3 users are in the histories; unknown: '7'"),
    "segments": ("segments", [("ann", "dk"), ("bob", "dk")], "unknown: 'bob'; known ones look like 'Bob'"),
}


@pytest.mark.parametrize(("option", "rows", "expected"), PARTLY.values(), ids=PARTLY.keys())
def test_a_few_ids_that_are_almost_known_are_a_warning(
    option: str, rows: Rows, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored_articles(tmp_path, option, rows) == 0
    assert expected in capsys.readouterr().err


def test_a_table_that_spells_a_known_id_twice_is_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scored_articles(tmp_path, "block", [("00100",), ("00104",), (104,)]) == 0
    assert scored_articles(tmp_path, "block-for-user", [("ann", "00100"), ("0007", "00100"), (7, "00100")]) == 0
    assert "WARNING" not in capsys.readouterr().err


def test_an_id_that_the_type_of_the_log_excludes_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(tmp_path, "block", [(1000,), (1020,), ("1.020",)]) == 0
    assert "WARNING --block: the model knows 2 of 3 items; unknown: '1.020'" in capsys.readouterr().err


def test_a_category_for_none_of_the_items_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: tuple[Any, ...] = ("--category-column", "genre", "--max-per-category", 1)
    catalogue = tmp_path / "movies.csv"
    write_table(catalogue, "movieId,title,genre", [(5, "Five", "war")])
    assert scored(tmp_path, "block", [(1000,)], "--items", catalogue, *options) == 3
    assert "names a category for none of the 40 items of the model, such as 1000" in capsys.readouterr().err
    write_table(catalogue, "movieId,title,genre", [(1000, "Old", "war")])
    assert scored(tmp_path, "block", [(1000,)], "--items", catalogue, *options) == 0
    assert "WARNING --category-column: 1 of 40 items of the model have one; not 1001" in capsys.readouterr().err


def test_rows_with_a_segment_need_users_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_segment = {"header": "item_id,segment"}
    assert scored(tmp_path, "block", [(1000, "dk")], **by_segment) == 2
    assert "block.csv: has rows with a segment; expected --segments" in capsys.readouterr().err
    people = ("--segments", write_table(tmp_path / "people.csv", "user_id,segment", [(1, "dk"), (2, "se")]))
    assert scored(tmp_path, "block", [(1000, "DK"), (1001, "")], *people, **by_segment) == 3
    assert (
        "--block: 0 of 1 segments are in --segments; unknown: 'DK'; known ones look like 'dk'"
        in capsys.readouterr().err
    )
    assert scored(tmp_path, "block", [(1010, ""), (1011, None)], **by_segment) == 0
    assert scored(tmp_path, "block", [(1010, "dk"), (1011, "se")], *people, **by_segment) == 0


# The last one has an accent that is a character of its own.
@pytest.mark.parametrize("segment", ["DÅNK", "dånk.0", "0dånk", "da\u030ank"])
def test_a_segment_that_is_almost_one_of_the_users_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], segment: str
) -> None:
    people = write_table(tmp_path / "people.csv", "user_id,segment", [(1, "dånk"), (2, "se"), (3, "no")])
    rows: Rows = [(1000, segment), (1001, "se"), (1002, "no")]
    assert scored(tmp_path, "block", rows, "--segments", people, header="item_id,segment") == 0
    warning = f"WARNING --block: 2 of 3 segments are in --segments; unknown: {segment!r}; known ones look like 'dånk'"
    assert warning in capsys.readouterr().err


def test_columns_may_be_in_capitals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capitals = {"header": "ITEM_ID,SEGMENT,VALID_FROM,VALID_TO"}
    people = write_table(tmp_path / "people.csv", "USER_ID,COUNTRY", [(1, "dk")])
    options = ("--segments", people, "--segment-column", "country", "--top-k", 36, "--run-date", "2024-06-01")
    rows: Rows = [(1010, "dk", "", ""), (1011, "", "2024-06-01", ""), (1012, "", "", "2024-05-31")]
    assert scored(tmp_path, "block", rows, *options, **capitals) == 0
    recs = recs_of(tmp_path / "recs.parquet")
    assert {row["item_id"] for row in recs[1]} == {*ITEMS[3:]} - {1010, 1011}
    assert scored(tmp_path, "block", [(1010, 1011)], header="ITEM_ID,Item_Id") == 3
    assert "no column 'item_id'" in capsys.readouterr().err
    # The exact name comes before one in other case.
    assert scored(tmp_path, "block", [(1010, 1011)], "--top-k", 36, header="ITEM_ID,item_id") == 0
    assert 1010 in {row["item_id"] for row in recs_of(tmp_path / "recs.parquet")[1]}


def test_a_parquet_table_in_capitals_is_read_too(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    pq.write_table(pa.table({"ITEM_ID": [1010]}), tmp_path / "block.parquet")
    where = ("--sequences", sequences, "--model", model(), "--out", tmp_path / "recs.parquet", "--device", "cpu")
    assert run_cli("score", *where, "--block", tmp_path / "block.parquet", "--top-k", 36) == 0
    assert 1010 not in {row["item_id"] for row in recs_of(tmp_path / "recs.parquet")[1]}


def test_a_query_sees_the_run_date(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    (tmp_path / "pins.sql").write_text("select 1000 + day(getvariable('run_date')) as item_id, 1 as position")
    where = ("--sequences", sequences, "--model", model(), "--out", tmp_path / "recs.parquet", "--device", "cpu")
    for day in (20, 21):
        assert run_cli("score", *where, "--pins", tmp_path / "pins.sql", "--run-date", f"2024-06-{day}") == 0
        assert {rows[0]["item_id"] for rows in recs_of(tmp_path / "recs.parquet").values()} == {1000 + day}
