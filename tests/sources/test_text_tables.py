"""Small tables that people write: users, catalogues and rules, read with the same spelling of ids."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import CatalogueConfig
from batchrec.errors import ConfigError, InputError
from batchrec.rules.rule_tables import read_rule_table
from batchrec.scoring.user_list import read_user_list
from batchrec.sources.catalogue import Catalogue, read_catalogue
from batchrec.sources.text_tables import read_text_table
from batchrec.tables.ids import as_ids, null_pattern
from tests.support.models import write_sequences


def catalogue(items: str, id_type: pa.DataType, run_date: date | None = None, title_column: str = "title") -> Catalogue:
    read = read_catalogue(CatalogueConfig(items=items, title_column=title_column), id_type, run_date)
    assert read is not None
    return read


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("text", "integer", "string"),
    [
        ("17850", 17850, "17850"),
        (" 17850\u00a0", 17850, "17850"),
        ("17850.000", 17850, "17850.000"),
        ("-0", 0, "-0"),
        ("007", 7, "007"),
        ("9223372036854775807", 2**63 - 1, "9223372036854775807"),
        ("9223372036854775808", None, "9223372036854775808"),
        ("1.5", None, "1.5"),
        ("1.2345678E7", 12345678, "1.2345678E7"),
        ("-1.23456789012E11 ", -123456789012, "-1.23456789012E11"),
        ("1.23456789E7", None, "1.23456789E7"),
        ("1.2345679E14", None, "1.2345679E14"),
        # A float from 2^53 on may be another id.
        ("9007200000000002.0", None, "9007200000000002.0"),
        ("-9123456789012346.0", None, "-9123456789012346.0"),
        ("9006999999999999.0", 9006999999999999, "9006999999999999.0"),
        ("9123456789012345.00", 9123456789012345, "9123456789012345.00"),
        ("12345678901234567.0", 12345678901234567, "12345678901234567.0"),
        ("A03  ", None, "A03"),
        ("\\N", None, None),
        (" null ", None, None),
        ("NaN", None, None),
        ("", None, None),
    ],
)
def test_an_id_has_one_spelling(text: str, integer: int | None, string: str | None) -> None:
    assert as_ids(pa.array([text]), pa.int64()).to_pylist() == [integer]
    assert as_ids(pa.array([text]), pa.string()).to_pylist() == [string]


def test_small_tables_have_the_same_null_words_as_the_log() -> None:
    words = ["\\N", "NULL", "none", "", "  ", "x", "n/a", "\\n"]
    is_missing = as_ids(pa.array(words), pa.string()).is_null().to_pylist()
    is_null_word = pa.compute.match_substring_regex(pa.array(words), null_pattern()).to_pylist()
    assert is_null_word == is_missing == [True, True, True, True, True, False, False, True]


def test_users_and_titles_come_from_a_query_that_sees_the_run_date(tmp_path: Path) -> None:
    users = write(
        tmp_path,
        "users.sql",
        "select unnest(['7', '8.0']) as user_id where getvariable('run_date') >= date '2024-01-01'",
    )
    assert read_user_list(users, pa.int64(), date(2024, 6, 1)).to_pylist() == [7, 8]
    with pytest.raises(InputError, match="no users"):
        read_user_list(users, pa.int64(), date(2023, 6, 1))
    movies = write(tmp_path, "movies.sql", "select 1 as MOVIEID, 'Film ' || year(getvariable('run_date')) as title")
    titles = catalogue(movies, pa.int64(), date(2024, 6, 1))
    assert (titles.item_ids.to_pylist(), titles.titles.to_pylist()) == (["1"], ["Film 2024"])
    with pytest.raises(ConfigError, match="no column 'name'"):
        catalogue(movies, pa.int64(), title_column="name")


def test_a_user_id_in_place_of_the_header_is_an_error(tmp_path: Path) -> None:
    histories = {"anna  ": ["i1"], "bert": ["i2"], "USER_ID": ["i1"]}
    sequences = write_sequences(tmp_path / "s.parquet", histories, pa.string(), pa.string())

    def users(text: str) -> list[str]:
        file = write(tmp_path, "users.csv", text)
        return list(read_user_list(file, pa.string(), None, sequences).to_pylist())

    with pytest.raises(InputError, match=r"the first line is 'anna'; expected a header with the column user_id"):
        users("anna\nbert\n")
    # Any other name is a header, and user_id is always one.
    assert users("customer\nanna\n") == ["anna"]
    assert users("USER_ID\nanna\nbert\n") == ["anna", "bert"]


def test_a_title_is_found_by_any_spelling_of_its_id(tmp_path: Path) -> None:
    movies = write(tmp_path, "movies.csv", "movieId,title\n 1.00 ,One\nA03,Three\n")
    titles = catalogue(movies, pa.int64())
    assert titles.values_of(pa.array([1, 2])).to_pylist() == ["One", None]
    titles = catalogue(movies, pa.string())
    assert titles.values_of(pa.array(["A03   ", "1"])).to_pylist() == ["Three", None]


def test_whole_decimals_of_a_table_are_the_integers_of_the_log(tmp_path: Path) -> None:
    decimals = pa.array(["22", "5"]).cast(pa.decimal128(20, 4))
    pq.write_table(pa.table({"item_id": decimals, "factor": [2.5, 3.0]}), tmp_path / "boost.parquet")
    columns = {"item_id": "--boost", "factor": "--boost"}
    table = read_text_table(str(tmp_path / "boost.parquet"), "--boost", columns)
    assert table.rows.to_pydict() == {"item_id": ["22", "5"], "factor": ["2.5", "3"]}


def test_rows_merged_by_a_stray_quote_are_an_error(tmp_path: Path) -> None:
    movies = write(tmp_path, "movies.csv", 'movieId,title\n1,"Heroes\n2,Low\n3,Lodger"\n')
    with pytest.raises(InputError, match=r"line 2: a row within quotes .*Fix the table of --items"):
        catalogue(movies, pa.int64())
    spread = write(tmp_path, "spread.csv", 'movieId,title\n1,"Heroes\nin two lines"\n2,Low\n')
    assert catalogue(spread, pa.int64()).titles.to_pylist() == ["Heroes\nin two lines", "Low"]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([2.0**53 + 2]),
        pa.array([2.0**24 + 2], pa.float32()),
        pa.array([Decimal(2**53 + 1)], pa.decimal256(40, 0)),
    ],
    ids=["double", "float", "decimal256"],
)
def test_floats_that_have_lost_digits_are_refused_as_ids_of_small_tables(tmp_path: Path, ids: pa.Array) -> None:
    file = str(tmp_path / "table.parquet")
    columns = {"user_id": ids, "item_id": ids, "movieId": ids, "title": pa.array(["A"])}
    pq.write_table(pa.table(columns), file)
    readers: list[Callable[[], object]] = [
        lambda: read_rule_table(file, "--block", ["item_id"]),
        lambda: read_rule_table(file, "--block-for-user", ["user_id"]),
        lambda: read_user_list(file, pa.int64()),
        lambda: catalogue(file, pa.int64()),
        lambda: read_text_table(file, "--recs", {"item_id": "--recs"}).ids("item_id", pa.int64()),
    ]
    for read in readers:
        with pytest.raises(InputError, match=r"table\.parquet: column .* has ids as .* lost digits"):
            read()
    # Other columns of floats may be as large.
    numbers = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"item_id": pa.array([7]), "factor": ids}), numbers)
    assert read_rule_table(str(numbers), "--boost", ["item_id", "factor"]).ids("item_id", pa.int64()).to_pylist() == [7]
