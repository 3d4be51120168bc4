"""Connections within one_database are as separate as connections to databases of their own, and cheaper."""

from pathlib import Path
from threading import Thread

import duckdb
import pyarrow as pa
import pytest

from batchrec.errors import ConfigError
from batchrec.tables.queries import connect, one_database, spill_folder
from tests.faults import mutated_parquet

pytestmark = pytest.mark.usefixtures("own_duckdb")


def tables_of(con: duckdb.DuckDBPyConnection) -> list[str]:
    return [row[0] for row in con.execute("show tables").fetchall()]


def test_nested_connections_share_a_database_but_no_table(n_started: list[None]) -> None:
    with one_database(), connect() as first:
        first.execute("create table numbers as select 1 as number")
        first.from_arrow(pa.table({"number": [2]})).create_view("others")
        with connect() as second:
            assert tables_of(second) == []
            second.from_arrow(pa.table({"number": [3]})).create_view("others")
            assert second.execute("select number from others").fetchall() == [(3,)]
        rows = first.execute("select number from numbers union all from others order by number").fetchall()
        assert rows == [(1,), (2,)]
    assert len(n_started) == 1


def test_settings_and_macros_are_those_of_every_connection() -> None:
    with one_database(), connect() as con:
        assert con.execute("select current_setting('timezone')").fetchall() == [("UTC",)]
        assert con.execute("select current_setting('preserve_insertion_order')").fetchall() == [(False,)]
        numbers = pa.table({"number": [1]})
        with pytest.raises(duckdb.CatalogException):
            con.execute("select * from numbers")
        assert len(numbers) == 1


def test_tables_are_dropped_with_their_connection_also_after_an_error() -> None:
    def fail() -> None:
        with connect() as con:
            con.execute("create table numbers as select range as number from range(1000)")
            relation = con.sql("select number from numbers order by number")
            assert relation.limit(1).fetchall() == [(0,)]
            raise ZeroDivisionError

    with one_database():
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                fail()
        with connect() as con:
            names = [row[0] for row in con.execute("select database_name from duckdb_databases()").fetchall()]
            assert sum(name.startswith("catalog_") for name in names) == 1


def test_options_and_other_threads_get_databases_of_their_own(n_started: list[None], tmp_path: Path) -> None:
    def in_thread() -> None:
        with connect():
            pass

    with one_database():
        with connect(tmp_path) as con:
            assert spill_folder(con).parent == tmp_path
        thread = Thread(target=in_thread)
        thread.start()
        thread.join()
        with one_database(), connect(), connect(is_alone=True) as con:
            assert spill_folder(con).exists()
        with pytest.raises(ConfigError, match="--memory-limit 1KB"), connect(memory_limit="1KB") as con:
            con.execute("select list(range) from range(1000000)").fetchall()
    assert len(n_started) == 5


def test_a_fatal_error_stays_the_one_that_is_raised(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(mutated_parquet.mutation(3348)[2])
    with (
        pytest.raises(duckdb.Error, match="Information loss on integer cast") as caught,
        one_database(),
        connect() as con,
    ):
        con.execute("select sum(hash(columns(*))) from read_parquet(?)", [str(damaged)]).fetchall()
    assert "has been invalidated" not in str(caught.value)
