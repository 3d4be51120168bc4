"""Tables of stores as sources: what holds for every kind of store, with a stand-in and with DuckDB files."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import CatalogueConfig
from batchrec.errors import ConfigError, InputError, StoreError
from batchrec.scoring.user_list import read_user_list
from batchrec.sources import is_table_url, open_tables, split_tables
from batchrec.sources.catalogue import read_catalogue
from batchrec.sources.stores import TABLE_SOURCES, Since, TableSource
from batchrec.sources.stores.bigquery import BigQuerySource
from batchrec.sources.stores.delta import DeltaSource
from batchrec.sources.stores.dialect import Dialect
from batchrec.sources.stores.iceberg import IcebergSource
from batchrec.sources.stores.snowflake import SnowflakeSource, connection_options
from batchrec.system.urls import Url
from batchrec.tables.queries import connect
from tests.conftest import BuildSequences
from tests.support.log_files import DAY, T, events, fails, log, write

pytestmark = pytest.mark.usefixtures("detected_unit")

WANTED = {"userId": "--user-column", "movieId": "--item-column", "timestamp": "--timestamp-column"}


def time(days: int) -> datetime:
    return datetime.fromtimestamp(T + days * DAY, UTC)


def write_duckdb(table: pa.Table, name: str = "plays", file: str = "shop.db") -> str:
    with duckdb.connect(file) as con:
        con.from_arrow(table).create(name)
    return f"duckdb://{file}?table={name}"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type["StandIn"]:
    """Return a store whose table and error a test sets, with the scheme standin."""
    monkeypatch.setitem(TABLE_SOURCES, "standin", StandIn)
    monkeypatch.setattr(StandIn, "table", None)
    monkeypatch.setattr(StandIn, "error", None)
    return StandIn


class StandIn(TableSource):
    """A store in memory. error: raised after the first batch."""

    table: pa.Table | None = None
    error: Exception | None = None

    @classmethod
    @contextmanager
    def open(cls, url: Url) -> Iterator["StandIn"]:
        yield cls()

    def schema(self) -> pa.Schema:
        assert self.table is not None
        return self.table.schema

    def read(self, columns: Sequence[str], since: Since | None = None) -> pa.RecordBatchReader:
        assert self.table is not None
        rows = self.table.select(columns)

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in rows.to_batches(max_chunksize=2):
                yield batch
                if self.error is not None:
                    raise self.error

        return pa.RecordBatchReader.from_batches(rows.schema, batches())


def stand_in_log(**columns: Any) -> pa.Table:
    return pa.table({"userId": [1, 1, 2], "movieId": [10, 11, 10], "timestamp": [T, T + 1, T]} | columns)


def test_urls_of_tables_are_told_from_files() -> None:
    urls = ["delta://a", "DELTA+S3://b/a", "iceberg://c/db.t", "duckdb://f?table=t", "postgresql://h/db?table=t"]
    files = ["delta", "a/delta:/b", "s3://bucket/a.parquet", "https://host/delta://a", "C:\\delta"]
    assert split_tables([*urls, *files]) == (files, urls)
    assert is_table_url("snowflake://a/b?table=t")
    assert is_table_url("bigquery://a?table=b.t")


def test_values_of_a_table_keep_their_types(build: BuildSequences, stand_in: type[StandIn]) -> None:
    """Integers that no float holds, decimals with zeros, times with another zone, and a decimal of 50 digits."""
    big = 2**62 + 1
    StandIn.table = pa.table(
        {
            "userId": [big, big + 1, big],
            "movieId": pa.array([Decimal("7.00"), Decimal("7.00"), Decimal("8.00")], pa.decimal256(50, 2)),
            "timestamp": pa.array([time(0), time(1), time(2)], pa.timestamp("ns", "Asia/Tokyo")),
        }
    )
    outcome = build("--ratings", "standin://a")
    assert events(outcome) == {big: [(7, T), (8, T + 2 * DAY)], big + 1: [(7, T + DAY)]}
    assert (outcome.report["user_id_type"], outcome.report["item_id_type"]) == ("int64", "int64")


def test_tables_and_files_are_read_together(build: BuildSequences, stand_in: type[StandIn]) -> None:
    StandIn.table = stand_in_log()
    log(f"2,12,{T + 5}")
    assert build("--ratings", "standin://a", "--ratings", "ratings.csv").histories == {1: [10, 11], 2: [10, 12]}


def test_a_column_without_values_does_not_influence_the_types(build: BuildSequences, stand_in: type[StandIn]) -> None:
    StandIn.table = pa.table({name: pa.nulls(1, pa.string()) for name in WANTED})
    log(f"2,12,{T}")
    outcome = build("--ratings", "standin://a", "--ratings", "ratings.csv", "--max-bad-rows", "1")
    assert outcome.histories == {2: [12]}
    assert outcome.stderr == ""


def test_text_in_a_table_and_numbers_in_another_are_warned_of(build: BuildSequences) -> None:
    one = write_duckdb(stand_in_log(userId=["a", "a", "b"]), "one")
    other = write_duckdb(stand_in_log(), "other")
    outcome = build("--ratings", one, "--ratings", other)
    assert set(outcome.histories) == {"a", "b", "1", "2"}
    assert f"column 'userId' is text in {one} and a number in {other}" in outcome.stderr


def test_rejects_name_the_url(build: BuildSequences, stand_in: type[StandIn]) -> None:
    StandIn.table = stand_in_log(movieId=[10, None, 10])
    fails(build("--ratings", "standin://a"), "standin://a: ", "1 of 3 rows cannot be used")
    outcome = build("--ratings", "standin://a", "--max-bad-rows", "1")
    (reject,) = Path(outcome.report["rejects_file"]).read_text(encoding="utf-8").splitlines()[1:]
    assert reject.startswith("standin://a,,")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"movieId": [[1], [2], [3]]}, ["movieId", "--item-column", "type list", "unnest(movieId)"]),
        ({"movieId": [{"a": 1}] * 3}, ["movieId", "--item-column", "type struct"]),
        ({"timestamp": pa.array([1, 2, 3], pa.duration("s"))}, ["timestamp", "durations"]),
        ({"userId": [b"a", b"b", b"c"]}, ["userId", "bytes"]),
        ({"userId": [1e18, 2.0, 3.0]}, ["userId", "floats", "lost digits"]),
    ],
)
def test_columns_that_cannot_be_used_are_refused_as_those_of_files(
    build: BuildSequences, stand_in: type[StandIn], columns: dict[str, Any], words: list[str]
) -> None:
    StandIn.table = stand_in_log(**columns)
    fails(build("--ratings", "standin://a"), "standin://a: ", *words)


def test_a_missing_column_names_those_that_exist(build: BuildSequences, stand_in: type[StandIn]) -> None:
    StandIn.table = stand_in_log().rename_columns(["user", "movieId", "timestamp"])
    found = "no column 'userId'; found user, movieId, timestamp; did you mean 'user'? Pass --user-column"
    fails(build("--ratings", "standin://a"), found)
    StandIn.table = stand_in_log().rename_columns(["userId", "movieId", "movieId"])
    fails(build("--ratings", "standin://a"), "2 columns 'movieId'")


@pytest.mark.parametrize(
    "error", [OSError("reset by peer"), pa.ArrowInvalid("reset by peer"), StoreError("reset by peer")]
)
def test_a_store_that_fails_halfway_is_a_store_error(
    build: BuildSequences, stand_in: type[StandIn], error: Exception
) -> None:
    StandIn.table, StandIn.error = stand_in_log(), error
    write("sequences.parquet", "old")
    outcome = build("--ratings", "standin://a")
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (8, 1)
    assert "reset by peer" in outcome.stderr
    assert Path("sequences.parquet").read_text(encoding="utf-8") == "old"


def test_histories_of_a_duckdb_file_equal_those_of_parquet(build: BuildSequences) -> None:
    rows = pa.table(
        {
            "userId": [2**62 + 1, 2, 2, None],
            "movieId": ["a", " b", None, "c"],
            "timestamp": pa.array([time(0), time(3), time(1), time(2)], pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(rows, "log.parquet")
    expected = build("--ratings", "log.parquet", "--max-bad-rows", "2")
    outcome = build("--ratings", write_duckdb(rows), "--max-bad-rows", "2")
    assert outcome.rows == expected.rows
    assert outcome.report["rejected"] == expected.report["rejected"] != {}


@pytest.mark.parametrize("type_", ["hugeint", "uuid", "enum('a', 'b')", "ubigint"])
def test_types_of_duckdb_keep_their_text(build: BuildSequences, type_: str) -> None:
    value = {"hugeint": "7", "uuid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "ubigint": "9"}.get(type_, "a")
    with duckdb.connect("shop.db") as con:
        con.execute(f"create table plays as select '{value}'::{type_} as userId, 1 as movieId, {T} as timestamp")
    assert list(build("--ratings", "duckdb://shop.db?table=plays").histories) == [
        int(value) if value in "79" else value
    ]


@pytest.mark.parametrize("end", ["", " ;\n", " -- the tens"])
def test_a_query_in_the_url_of_a_duckdb_file_is_read(build: BuildSequences, end: str) -> None:
    write_duckdb(stand_in_log())
    query = quote("select userId, movieId, timestamp from plays where movieId = 10") + quote(end)
    assert build("--ratings", f"duckdb://shop.db?query={query}").histories == {1: [10], 2: [10]}


def test_a_query_in_a_url_cannot_write(build: BuildSequences) -> None:
    url = write_duckdb(stand_in_log())
    before = Path("shop.db").read_bytes()
    for statement in (
        "delete from plays",
        "select 1) as q; drop table plays; select * from (select 1",
        "copy plays to 'x'",
    ):
        outcome = build("--ratings", f"{url.partition('?')[0]}?query={quote(statement)}")
        assert outcome.exit_code in (2, 8)
        assert outcome.stderr.count("\n") == 1
    assert Path("shop.db").read_bytes() == before
    assert {path.name for path in Path().iterdir()} == {"shop.db"}


@pytest.mark.parametrize(
    ("url", "exit_code", "words"),
    [
        ("duckdb://shop.db?table=nope", 8, ["duckdb://shop.db?table=nope", "nope does not exist"]),
        ("duckdb://shop.db?query=selec", 2, ["the query cannot be run"]),
        ("duckdb://shop.db", 2, ["expected ?table=schema.name, or ?query="]),
        ("duckdb://shop.db?table=a&query=b", 2, ["expected ?table=schema.name, or ?query="]),
        ("duckdb://shop.db?tabel=plays", 2, ["unknown parameter tabel"]),
        ("duckdb://no.db?table=plays", 8, ["no.db", "does not exist"]),
        ("duckdb://text.db?table=plays", 8, ["not a valid DuckDB database"]),
        ("postgresql://u:geheim@h/db?table=t", 2, ["holds a password"]),
        ("postgresql://u:p@ss/geheim@h/db?table=t", 2, ["://u:***@h/db: holds a password"]),
        ("postgresql://u@h/db?table=t&options=-cpw=geheim", 2, ["postgresql://u@h/db: unknown parameter options"]),
    ],
)
def test_errors_of_urls_are_one_line(build: BuildSequences, url: str, exit_code: int, words: list[str]) -> None:
    write_duckdb(stand_in_log())
    write("text.db", "no database, but a text of some length")
    outcome = build("--ratings", url)
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (exit_code, 1)
    assert [word for word in words if word not in outcome.stderr] == []
    assert "geheim" not in outcome.stderr


def test_a_duckdb_file_that_a_program_writes_is_a_store_error(build: BuildSequences) -> None:
    url = write_duckdb(stand_in_log())
    code = "import duckdb; con = duckdb.connect('shop.db'); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        outcome = build("--ratings", url)
        writer.communicate(b"\n")
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (8, 1)
    assert "lock" in outcome.stderr
    assert build("--ratings", url).histories == {1: [10, 11], 2: [10]}


def test_the_output_may_not_be_the_duckdb_file_that_is_read(build: BuildSequences) -> None:
    url = write_duckdb(stand_in_log())
    before = Path("shop.db").read_bytes()
    fails(build("--ratings", url, "--out", "shop.db"), "shop.db: is also an input")
    assert Path("shop.db").read_bytes() == before


@pytest.mark.parametrize("type_", [pa.timestamp("us", "UTC"), pa.timestamp("ms"), pa.date32()])
def test_rows_before_a_time_are_not_read(tmp_path: Path, type_: pa.DataType) -> None:
    times = (
        pa.array([time(0), time(5), None], pa.timestamp("us", "UTC")).cast(pa.timestamp("us")).cast(type_, safe=False)
    )
    url = write_duckdb(stand_in_log(timestamp=times), file=str(tmp_path / "shop.db"))
    with connect() as con:
        (source,) = open_tables(con, [url], WANTED, Since("timestamp", time(2)))
        assert sorted(con.view(source.view).select("movieId").fetchall()) == [(10,), (11,)]


def test_a_bound_on_a_column_of_numbers_reads_all_rows(tmp_path: Path) -> None:
    url = write_duckdb(stand_in_log(), file=str(tmp_path / "shop.db"))
    with connect() as con:
        (source,) = open_tables(con, [url], WANTED, Since("timestamp", time(2)))
        assert len(con.view(source.view).fetchall()) == 3


def test_small_tables_come_from_urls_whatever_the_case_of_their_columns(tmp_path: Path) -> None:
    file = str(tmp_path / "shop.db")
    movies = write_duckdb(pa.table({"MOVIEID": [1, 2], "Title": ["One", "Two"]}), "movies", file)
    titles = read_catalogue(CatalogueConfig(items=movies), pa.int64())
    assert titles is not None
    assert (titles.item_ids.to_pylist(), titles.titles.to_pylist()) == (["1", "2"], ["One", "Two"])
    alone = write_duckdb(pa.table({"customer": [7, 8]}), "alone", file)
    assert read_user_list(alone, pa.int64()).to_pylist() == [7, 8]
    several = write_duckdb(pa.table({"name": ["x"], "USER_ID": [9]}), "several", file)
    assert read_user_list(several, pa.int64()).to_pylist() == [9]
    with pytest.raises(InputError, match="no column 'user_id'; found MOVIEID, Title"):
        read_user_list(movies, pa.int64())


def test_names_are_quoted_and_times_are_literals_of_the_database() -> None:
    url = Url.parse("postgresql://h/db?table=sh%22op.Plays")
    schema = pa.schema(
        [("a", pa.int64()), ('t"', pa.timestamp("us", "UTC")), ("n", pa.timestamp("us")), ("d", pa.date32())]
    )
    plain = Dialect()
    assert plain.rows_of(url) == '"sh""op"."Plays"'
    start = datetime.fromisoformat("2024-06-01T02:00:00+02:00")

    def condition(dialect: Dialect, column: str) -> str:
        return dialect.select("r", ["a"], schema, Since(column, start)).removeprefix("select a from r")

    zoned = "timestamp with time zone '2024-06-01 00:00:00+00:00'"
    assert condition(plain, 't"') == f' where "t""" >= {zoned} or "t""" is null'
    assert condition(plain, "n") == """ where "n" >= timestamp '2024-06-01 00:00:00' or "n" is null"""
    assert condition(plain, "d") == """ where "d" >= date '2024-06-01' or "d" is null"""
    assert condition(plain, "a") == ""
    bigquery = BigQuerySource.dialect
    assert bigquery.rows_of(Url.parse("bigquery://p?table=shop.plays")) == "`shop`.`plays`"
    assert condition(bigquery, "n") == " where `n` >= datetime '2024-06-01 00:00:00' or `n` is null"
    # Snowflake stores a name that was written without quotes in capitals.
    snowflake = SnowflakeSource.dialect
    assert snowflake.rows_of(Url.parse("snowflake://a/b?table=public.my%20plays")) == 'public."my plays"'


def test_snowflake_finds_its_credentials_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNOWFLAKE_USER", "anna")
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", "geheim")
    monkeypatch.delenv("SNOWFLAKE_PRIVATE_KEY_PATH", raising=False)
    options = connection_options(Url.parse("snowflake://org-account/shop?table=plays"))
    assert options["adbc.snowflake.sql.account"] == "org-account"
    assert options["adbc.snowflake.sql.db"] == "shop"
    assert (options["username"], options["password"]) == ("anna", "geheim")
    with pytest.raises(ConfigError, match="expected snowflake://account/db"):
        connection_options(Url.parse("snowflake://account?table=plays"))


@pytest.mark.parametrize(
    ("source", "url", "package"),
    [
        (DeltaSource, "delta://t", "deltalake"),
        (IcebergSource, "iceberg://lake/shop.t", "pyiceberg"),
        (TABLE_SOURCES["postgresql"], "postgresql://h/db?table=t", "adbc_driver_manager"),
        (BigQuerySource, "bigquery://p?table=d.t", "adbc_driver_manager"),
        (SnowflakeSource, "snowflake://a/db?table=t", "adbc_driver_manager"),
    ],
)
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, source: type[TableSource], url: str, package: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"postgresql": "postgres"}.get(Url.parse(url).scheme, Url.parse(url).scheme)
    expected = pytest.raises(ConfigError, match=rf"{package}.* is not installed.*pip install 'batchrec\[{extra}\]'")
    with expected, source.open(Url.parse(url)):
        pass
