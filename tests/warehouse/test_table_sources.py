"""Tables of Delta Lake, Iceberg, Postgres and DuckDB as sources: what is read equals the same rows in files."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import CatalogueConfig
from batchrec.rules.rule_tables import read_rule_table
from batchrec.scoring.user_list import read_user_list
from batchrec.sources import open_tables
from batchrec.sources.catalogue import read_catalogue
from batchrec.sources.stores import TABLE_SOURCES, Since
from batchrec.sources.stores.dialect import Dialect
from batchrec.tables.queries import connect
from tests.conftest import BuildSequences
from tests.support.log_files import DAY, T

pytestmark = pytest.mark.usefixtures("detected_unit")

KINDS = ("delta", "delta on s3", "iceberg", "postgres", "duckdb")
WANTED = {"userId": "--user-column", "movieId": "--item-column", "timestamp": "--timestamp-column"}
BIG = 2**62 + 1


@dataclass(frozen=True)
class Store:
    """A store of a test. write: adds rows to a table by its name. delete: deletes rows of a table by a condition."""

    url_of: Callable[[str], str]
    write: Callable[[str, pa.Table], None]
    delete: Callable[[str, str], None]

    def url(self, name: str, table: pa.Table) -> str:
        """Write a table and return its URL."""
        self.write(name, table)
        return self.url_of(name)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    kind: str = request.param
    if kind.startswith("delta"):
        folder = request.getfixturevalue("s3") if kind == "delta on s3" else str(tmp_path / "lake")
        return delta_store(folder)
    if kind == "iceberg":
        return iceberg_store(request.getfixturevalue("iceberg"))
    return postgres_store(request.getfixturevalue("postgres")) if kind == "postgres" else duckdb_store(tmp_path)


def delta_store(folder: str) -> Store:
    deltalake = pytest.importorskip("deltalake")
    scheme = "delta+" if "://" in folder else "delta://"
    return Store(
        lambda name: f"{scheme}{folder}/{name}",
        lambda name, table: deltalake.write_deltalake(f"{folder}/{name}", table, mode="append"),
        lambda name, condition: deltalake.DeltaTable(f"{folder}/{name}").delete(condition),
    )


def iceberg_store(url: str) -> Store:
    catalog = pytest.importorskip("pyiceberg.catalog").load_catalog(url.removeprefix("iceberg://"))

    def write(name: str, table: pa.Table) -> None:
        catalog.create_table_if_not_exists(f"shop.{name}", schema=table.schema).append(table)

    return Store(
        lambda name: f"{url}/shop.{name}",
        write,
        lambda name, condition: catalog.load_table(f"shop.{name}").delete(condition.replace('"', "")),
    )


def postgres_store(url: str) -> Store:
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")

    def write(name: str, table: pa.Table) -> None:
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(name, table, mode="create_append")
            connection.commit()

    def delete(name: str, condition: str) -> None:
        execute(url, f'delete from "{name}" where {condition}')  # noqa: S608

    return Store(lambda name: f"{url}?table=public.{name}", write, delete)


def execute(url: str, *statements: str) -> None:
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def duckdb_store(folder: Path) -> Store:
    file = str(folder / "shop.db")

    def write(name: str, table: pa.Table) -> None:
        with duckdb.connect(file) as con:
            con.register("added", table)
            con.execute(f"create table if not exists {name} as from added limit 0; insert into {name} from added")

    def delete(name: str, condition: str) -> None:
        with duckdb.connect(file) as con:
            con.execute(f"delete from {name} where {condition}")  # noqa: S608

    return Store(lambda name: f"duckdb://{file}?table={name}", write, delete)


def moment(days: int) -> datetime:
    return datetime.fromtimestamp(T + days * DAY, UTC)


def plays(**columns: Any) -> pa.Table:
    """Return five events, with ids that no float holds and ratings that are decimals."""
    ratings = [Decimal(text) for text in ("4.50", "5.00", "3.00", "0.50", "5.00")]
    return pa.table(
        {
            "userId": [BIG, BIG, BIG + 1, 3, 3],
            "movieId": ["b", "a ", "c", "d", "ü"],
            "rating": pa.array(ratings, pa.decimal128(5, 2)),
            "timestamp": pa.array([moment(day) for day in (3, 1, 2, 5, 4)], pa.timestamp("us", "UTC")),
        }
        | columns
    )


@pytest.mark.parametrize("options", [[], ["--min-rating", "4"]])
def test_histories_equal_those_of_the_same_rows_in_files(
    build: BuildSequences, store: Store, options: list[str]
) -> None:
    rows = plays(movieId=["b", "a ", "c", None, "ü"])
    pq.write_table(rows, "log.parquet")
    duckdb.from_arrow(rows).to_csv("log.csv")
    url = store.url("plays", rows)
    table, parquet, csv = [
        build("--ratings", place, "--max-bad-rows", "1", "--out", f"{number}.parquet", *options)
        for number, place in enumerate((url, "log.parquet", "log.csv"))
    ]
    assert table.rows == parquet.rows == csv.rows != []
    for count in ("rows_read", "rejected", "left_out", "user_id_type", "item_id_type"):
        assert table.report[count] == parquet.report[count] == csv.report[count]
    (reject,) = Path("0.rejects.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert reject.startswith(f"{url},,no item")


def test_decimals_are_integer_ids(build: BuildSequences, store: Store) -> None:
    ids = pa.array([Decimal(number) for number in (7, 7, 8, 9, 9)], pa.decimal128(18, 0))
    outcome = build("--ratings", store.url("plays", plays(userId=ids, movieId=[1, 2, 3, 4, 5])))
    assert outcome.histories == {7: [2, 1], 8: [3], 9: [5, 4]}


@pytest.mark.parametrize("type_", [pa.timestamp("us"), pa.date32(), pa.int64(), pa.string()])
def test_times_of_each_type_are_the_same_time(build: BuildSequences, store: Store, type_: pa.DataType) -> None:
    days = [19_000, 19_001, 19_002, 19_003, 19_004]
    dates = pa.array(days, pa.int32()).cast(pa.date32())
    times = pa.array([day * DAY for day in days]) if pa.types.is_int64(type_) else dates.cast(type_)
    outcome = build("--ratings", store.url("plays", plays(timestamp=times)))
    assert sorted(outcome.times) == [day * DAY for day in days]


def test_old_and_deleted_rows_are_not_read(build: BuildSequences, store: Store) -> None:
    url = store.url("plays", plays())
    store.write("plays", plays(userId=[4] * 5))
    assert set(build("--ratings", url).histories) == {3, 4, BIG, BIG + 1}
    store.delete("plays", '"userId" = 3')
    outcome = build("--ratings", url)
    assert set(outcome.histories) == {4, BIG, BIG + 1}
    assert outcome.report["rows_read"] == 8


def test_an_empty_table_has_no_events(build: BuildSequences, store: Store) -> None:
    outcome = build("--ratings", store.url("plays", plays().slice(0, 0)))
    assert outcome.exit_code == 3
    assert "no event is left: of 0 rows" in outcome.stderr


def test_lists_and_unknown_columns_are_refused(build: BuildSequences, store: Store) -> None:
    lists = build("--ratings", store.url("lists", plays(movieId=[[1], [2], [3], [4], [5]])))
    assert (lists.exit_code, lists.stderr.count("\n")) == (3, 1)
    assert "column 'movieId' of --item-column has values of type list" in lists.stderr
    unknown = build("--ratings", store.url("plays", plays()), "--user-column", "user")
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (3, 1)
    found = "no column 'user'; found userId, movieId, rating, timestamp; did you mean 'userId'? Pass --user-column"
    assert found in unknown.stderr


def test_rows_before_a_time_are_not_read(store: Store) -> None:
    times = [moment(0), moment(5), moment(9), None, moment(1)]
    url = store.url("plays", plays(timestamp=pa.array(times, pa.timestamp("us", "UTC"))))
    with connect() as con:
        (source,) = open_tables(con, [url], WANTED, Since("timestamp", moment(5)))
        assert sorted(con.view(source.view).select("movieId").fetchall()) == [("a ",), ("c",), ("d",)]


def test_small_tables_are_read_from_each_kind_of_store(store: Store) -> None:
    movies = store.url("movies", pa.table({"movieId": [1, 2], "title": ["One", "Two"]}))
    titles = read_catalogue(CatalogueConfig(items=movies), pa.int64())
    assert titles is not None
    assert titles.values_of(pa.array([1, 2])).to_pylist() == ["One", "Two"]
    users = store.url("vips", pa.table({"user_id": [7, 8]}))
    assert sorted(read_user_list(users, pa.int64()).to_pylist()) == [7, 8]
    rows = pa.table({"item_id": ["x"], "factor": [1.5], "valid_to": pa.array([19_000], pa.int32()).cast(pa.date32())})
    table = read_rule_table(store.url("boosts", rows), "--boost", ["item_id", "factor"], ["valid_to", "valid_from"])
    assert table.rows.to_pylist() == [{"item_id": "x", "factor": "1.5", "valid_to": "2022-01-08", "valid_from": None}]


def test_a_missing_table_is_a_store_error(build: BuildSequences, store: Store) -> None:
    store.write("plays", plays())
    outcome = build("--ratings", store.url_of("nope"))
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (8, 1)
    assert f"{store.url_of('nope')}: cannot be read: " in outcome.stderr


def test_an_older_version_of_a_delta_table_can_be_read(build: BuildSequences, tmp_path: Path) -> None:
    store = delta_store(str(tmp_path / "lake"))
    url = store.url("plays", plays())
    store.delete("plays", "userId = 3")
    assert 3 not in build("--ratings", url).histories
    assert 3 in build("--ratings", f"{url}?version=0").histories
    first = tmp_path / "lake" / "plays" / "_delta_log" / f"{0:020}.json"
    info = next(json.loads(line)["commitInfo"] for line in first.read_text().splitlines() if "commitInfo" in line)
    committed = datetime.fromtimestamp(info["timestamp"] / 1000, UTC)
    after = quote((committed + timedelta(milliseconds=1)).isoformat())
    assert 3 in build("--ratings", f"{url}?timestamp={after}").histories


@pytest.mark.parametrize(
    ("parameters", "exit_code", "text"),
    [
        ("version=9", 8, "version"),
        ("timestamp=2001-01-01", 8, "no version is that old; expected a timestamp from 20"),
        ("version=x", 2, "expected a whole number"),
        ("timestamp=soon", 2, "expected a time like"),
        ("version=0&timestamp=2001-01-01", 2, "expected one of them"),
        ("table=x", 2, "unknown parameter table"),
    ],
)
def test_a_version_that_is_missing_is_an_error(
    build: BuildSequences, tmp_path: Path, parameters: str, exit_code: int, text: str
) -> None:
    outcome = build("--ratings", delta_store(str(tmp_path / "lake")).url("plays", plays()) + f"?{parameters}")
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (exit_code, 1), outcome.stderr
    assert text in outcome.stderr


def test_rows_of_a_deletion_vector_are_not_read(build: BuildSequences, tmp_path: Path) -> None:
    """Spark marks deleted rows this way; deltalake itself writes files again, without them."""
    url = delta_store(str(tmp_path / "lake")).url("plays", plays())
    log = tmp_path / "lake" / "plays" / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    add = next(action["add"] for action in actions if "add" in action)
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    protocol |= {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}  # type: ignore[dict-item]
    remove = {"path": add["path"], "dataChange": True, "deletionTimestamp": 1}
    commit = [{"protocol": protocol}, {"remove": remove}, {"add": add | {"deletionVector": deletion_vector([0, 3])}}]
    (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, commit)))
    outcome = build("--ratings", url)
    assert outcome.report["rows_read"] == 3
    assert outcome.histories == {BIG: ["a "], BIG + 1: ["c"], 3: ["ü"]}


def deletion_vector(rows: list[int]) -> dict[str, Any]:
    """Return an inline deletion vector of Delta's protocol: a 64-bit Roaring bitmap with one array container."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    raw = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    padded = raw + bytes(-len(raw) % 4)
    return {"storageType": "i", "pathOrInlineDv": z85(padded), "sizeInBytes": len(raw), "cardinality": len(rows)}


def z85(raw: bytes) -> str:
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    words = struct.unpack(f">{len(raw) // 4}I", raw)
    return "".join(alphabet[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))


def test_an_older_snapshot_of_an_iceberg_table_can_be_read(build: BuildSequences, iceberg: str) -> None:
    store = iceberg_store(iceberg)
    url = store.url("plays", plays())
    catalog = pytest.importorskip("pyiceberg.catalog").load_catalog("lake")
    snapshot = catalog.load_table("shop.plays").current_snapshot().snapshot_id
    with catalog.load_table("shop.plays").update_schema() as update:
        update.rename_column("userId", "user")
    store.delete("plays", "user = 3")
    assert 3 not in build("--ratings", url, "--user-column", "user").histories
    assert 3 in build("--ratings", f"{url}?snapshot={snapshot}").histories


@pytest.mark.parametrize(
    ("url", "exit_code", "text"),
    [
        ("iceberg://lake/shop.plays?snapshot=1", 8, "the table has no snapshot 1"),
        ("iceberg://lake/shop.plays?snapshot=x", 2, "expected a whole number"),
        ("iceberg://lake/shop.plays?version=1", 2, "unknown parameter version"),
        ("iceberg://lake/town.plays", 8, "does not exist"),
        ("iceberg://pond/shop.plays", 8, "cannot be read"),
        ("iceberg://lake/plays", 2, "expected iceberg://catalog/db.table"),
    ],
)
def test_a_snapshot_table_or_catalog_that_is_missing_is_an_error(
    build: BuildSequences, iceberg: str, url: str, exit_code: int, text: str
) -> None:
    iceberg_store(iceberg).write("plays", plays())
    outcome = build("--ratings", url)
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (exit_code, 1), outcome.stderr
    assert text in outcome.stderr


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_a_lost_file_of_a_lake_is_a_store_error(
    build: BuildSequences, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    is_delta = kind == "delta"
    lake = delta_store(str(tmp_path / "lake")) if is_delta else iceberg_store(request.getfixturevalue("iceberg"))
    url = lake.url("plays", plays())
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    outcome = build("--ratings", url)
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (8, 1), outcome.stderr
    assert f"{url}: cannot be read: " in outcome.stderr


def test_an_object_store_that_does_not_answer_is_a_store_error(
    build: BuildSequences, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = build("--ratings", "delta+s3://no-such-bucket/plays")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    unreachable = build("--ratings", f"delta+{s3}/plays")
    for outcome in (missing, unreachable):
        assert (outcome.exit_code, outcome.stderr.count("\n")) == (8, 1), outcome.stderr
        assert "no-secret-of-anybody" not in outcome.stderr


def test_types_of_postgres_are_read(build: BuildSequences, postgres: str) -> None:
    user = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    execute(
        postgres,
        "create type colour as enum ('red', 'blue')",
        f"create table plays (u uuid default '{user}', c colour, n numeric, at timestamptz)",
        "insert into plays values (default, 'red', 17850.00, '2024-01-01 01:00+01')",
        "insert into plays values (default, 'blue', 3, 'infinity')",
    )
    options = ("--user-column", "u", "--timestamp-column", "at", "--max-bad-rows", "1")
    outcome = build("--ratings", f"{postgres}?table=plays", "--item-column", "n", *options)
    # A time without end is none of a history.
    assert (outcome.histories, outcome.times) == ({user: [17850]}, [1704067200])
    outcome = build("--ratings", f"{postgres}?table=plays", "--item-column", "c", *options)
    assert outcome.histories == {user: ["red"]}


def test_texts_of_a_database_of_any_encoding_are_read(build: BuildSequences, postgres: str) -> None:
    options = ("--user-column", "u", "--timestamp-column", "at")
    for encoding in ("latin1", "sql_ascii"):
        execute(
            postgres, f"create database {encoding} encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0"
        )
        database = postgres.rpartition("/")[0] + f"/{encoding}"
        try:
            execute(
                f"{database}?client_encoding=UTF8",
                'create table plays (u text, "größe" text, at timestamptz)',
                "insert into plays values ('Müller', 'ß', '2024-01-01 00:00Z')",
            )
            outcome = build("--ratings", f"{database}?table=plays", "--item-column", "größe", *options)
            assert outcome.histories == {"Müller": ["ß"]}
            if encoding == "sql_ascii":
                # It stores what each program sends.
                execute(database, "insert into plays values (E'M\\xfcller', 'ß', '2024-01-01 00:00Z')")
                outcome = build("--ratings", f"{database}?table=plays", "--item-column", "größe", *options)
                assert outcome.exit_code == 8
                assert 'invalid byte sequence for encoding "UTF8": 0xfc' in outcome.stderr
        finally:
            execute(postgres, f"drop database {encoding} with (force)")


def test_a_query_of_postgres_is_read(build: BuildSequences, postgres: str) -> None:
    postgres_store(postgres).write("plays", plays())
    query = quote('select "userId", upper("movieId") as "movieId", timestamp from plays where "userId" = 3')
    assert build("--ratings", f"{postgres}?query={query}").histories == {3: ["Ü", "D"]}


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("with gone as (delete from plays returning *) select * from gone", "WITH clause"),
        ("select * from plays) as q; delete from plays; select * from (select 1", "multiple commands"),
        ("select setval('counter', 5) as \"userId\", * from items", "read-only transaction"),
        ("selec", "syntax error"),
    ],
)
def test_a_query_of_postgres_cannot_write(build: BuildSequences, postgres: str, query: str, text: str) -> None:
    url = postgres_store(postgres).url("plays", plays())
    execute(postgres, "create sequence counter", 'create view items as select "movieId", timestamp from plays')
    outcome = build("--ratings", f"{postgres}?query={quote(query)}")
    assert outcome.exit_code == (8 if "setval" in query else 2), outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert text in outcome.stderr
    assert build("--ratings", url).report["rows_read"] == 5


def test_a_database_that_refuses_is_a_store_error(
    build: BuildSequences, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_store(postgres).url("plays", plays())
    no_database = build("--ratings", "/nope?".join(url.rsplit(f"/{postgres.rpartition('/')[2]}?", 1)))
    monkeypatch.setenv("PGPASSWORD", "geheim")
    wrong_password = build("--ratings", url)
    for outcome, text in ((no_database, '"nope" does not exist'), (wrong_password, "authentication failed")):
        assert (outcome.exit_code, outcome.stderr.count("\n")) == (8, 1), outcome.stderr
        assert text in outcome.stderr
        assert "geheim" not in outcome.stderr


def test_a_database_that_does_not_answer_is_asked_again(
    build: BuildSequences, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    monkeypatch.setattr("batchrec.sources.stores.postgres._DELAYS_S", (0, 0))
    nobody = "postgresql://tester@127.0.0.1:9/db"
    outcome = build("--ratings", f"{nobody}?table=plays")
    assert outcome.exit_code == 8
    assert outcome.stderr.count("trying again") == 2
    url = postgres_store(postgres).url("plays", plays())
    connect_by_driver, asked = dbapi.connect, []

    def connect_the_third_time(address: str) -> Any:
        asked.append(address)
        return connect_by_driver(address if len(asked) == 3 else nobody)

    monkeypatch.setattr(dbapi, "connect", connect_the_third_time)
    assert build("--ratings", url).report["rows_read"] == 5
    assert len(asked) == 3


def test_a_connection_that_is_lost_halfway_is_a_store_error(build: BuildSequences, postgres: str) -> None:
    execute(
        postgres,
        "create view plays as select"
        ' case when i = 90000 then pg_terminate_backend(pg_backend_pid())::text else i::text end as "userId",'
        ' 1 as "movieId", now() as timestamp from generate_series(1, 100000) as i',
    )
    outcome = build("--ratings", f"{postgres}?table=plays")
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (8, 1), outcome.stderr
    assert "terminating connection" in outcome.stderr


@pytest.mark.parametrize("scheme", ["bigquery", "snowflake"])
def test_the_common_code_of_databases_reads_by_a_stand_in_for_their_drivers(
    build: BuildSequences, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    """DuckDB has an ADBC driver too. It takes double quotes in place of BigQuery's backticks."""
    driver = pytest.importorskip("adbc_driver_duckdb.dbapi")
    pytest.importorskip("adbc_driver_manager")
    store = duckdb_store(tmp_path)
    store.write("plays", plays())
    source: Any = TABLE_SOURCES[scheme]
    monkeypatch.setattr(source, "connect", classmethod(lambda *_: driver.connect(str(tmp_path / "shop.db"))))
    monkeypatch.setattr(source, "dialect", Dialect())
    url = f"{scheme}://account/db?table=main.plays"
    assert build("--ratings", url).rows == build("--ratings", store.url_of("plays")).rows != []
    missing = build("--ratings", f"{scheme}://account/db?table=nope")
    assert (missing.exit_code, missing.stderr.count("\n")) == (8, 1), missing.stderr
    with connect() as con:
        (opened,) = open_tables(con, [url], WANTED, Since("timestamp", moment(4)))
        assert sorted(con.view(opened.view).select("movieId").fetchall()) == [("d",), ("ü",)]


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("snowflake://account/db?table=t", "SNOWFLAKE_PRIVATE_KEY_PATH"),
        ("bigquery://project?table=d.t", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_drivers_without_credentials_are_a_store_error(tmp_path: Path, url: str, variable: str) -> None:
    pytest.importorskip(f"adbc_driver_{url.partition(':')[0]}")
    # In a process of its own: the drivers read the environment once.
    environment = os.environ | {variable: "no-such-file.json"}
    command = [sys.executable, "-m", "batchrec", "build-sequences", "--ratings", url]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (8, 1), ended.stderr
    assert f"{url}: cannot be read: " in ended.stderr
    assert "no-such-file.json" in ended.stderr


def test_a_signal_ends_the_wait_for_a_slow_database(postgres: str, tmp_path: Path) -> None:
    execute(postgres, 'create view plays as select 1 as "movieId", now() as timestamp, pg_sleep(600)::text as "userId"')
    command = [sys.executable, "-m", "batchrec", "build-sequences", "--ratings", f"{postgres}?table=plays"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as job:
        wait_until(postgres, "pg_sleep is running", 1)
        job.terminate()
        _, errors = job.communicate()
    assert (job.returncode, errors) == (143, "batchrec: terminated\n")
    wait_until(postgres, "the server has been told", 0)


def wait_until(url: str, what: str, n_expected: int) -> None:
    """Wait until a number of the database's connections wait in pg_sleep."""
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    query = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        deadline = monotonic() + 120
        while monotonic() < deadline:
            cursor.execute(query)
            if cursor.fetchone()[0] == n_expected:
                return
            sleep(0.1)
    raise AssertionError(f"not within two minutes: {what}")
