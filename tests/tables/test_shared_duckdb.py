"""Connections of tests share a DuckDB, and still see nothing of each other."""

from pathlib import Path
from threading import Thread

import duckdb
import pytest

from batchrec.config import SequencesConfig
from batchrec.errors import ConfigError
from batchrec.sequences.build import build_sequences
from batchrec.tables.queries import connect, one_database, spill_folder
from tests.support import shared_duckdb

MADE = (
    "create table made as select 1 as number",
    "create temp table made as select 1 as number",
    "create view made as select 1 as number",
    "create macro made() as table select 1 as number",
    "create temp macro made() as table select 1 as number",
)


def use_twice(folder: Path | None) -> None:
    with connect(folder) as first, connect() as second:
        assert first.execute("select 1").fetchall() == second.execute("select 1").fetchall()


def test_connections_without_options_start_no_duckdb(n_started: list[None], tmp_path: Path) -> None:
    use_twice(tmp_path)
    thread = Thread(target=use_twice, args=(None,))
    thread.start()
    thread.join()
    assert n_started == []


@pytest.mark.usefixtures("own_duckdb")
def test_a_test_can_have_a_duckdb_per_connection(n_started: list[None], tmp_path: Path) -> None:
    use_twice(tmp_path)
    assert len(n_started) == 2


def test_options_and_statements_of_a_user_get_databases_of_their_own(n_started: list[None], tmp_path: Path) -> None:
    for options in ({"memory_limit": "1GB"}, {"threads": 1}, {"is_alone": True}):
        with connect(**options):
            pass
    assert len(n_started) == 3
    query = tmp_path / "query.sql"
    query.write_text("set threads = 1; select 1 as user_id, 2 as item_id, 3 as timestamp")
    build_sequences((), SequencesConfig(query=str(query), timestamp_unit="s"), tmp_path / "sequences.parquet")
    assert len(n_started) == 4


@pytest.mark.parametrize("make", MADE)
def test_what_a_connection_makes_is_seen_by_no_other_and_goes_with_it(make: str) -> None:
    read = "from made" + "()" * ("macro" in make)
    with connect() as first, connect() as second:
        first.execute(make)
        assert first.execute(read).fetchall() == [(1,)]
        with pytest.raises(duckdb.CatalogException):
            second.execute(read)
        second.execute(make)
    with connect() as third, pytest.raises(duckdb.CatalogException):
        third.execute(read)


def test_settings_of_a_connection_do_not_outlive_it() -> None:
    settings = "select current_setting('timezone'), current_setting('preserve_insertion_order'), getvariable('made')"
    with connect() as con:
        expected = con.execute(settings).fetchall()
        con.execute("set timezone = 'Asia/Tokyo'; set preserve_insertion_order = true; set variable made = 1")
        assert con.execute(settings).fetchall() != expected
    with connect() as con:
        assert con.execute(settings).fetchall() == expected == [("UTC", False, None)]


def test_each_connection_has_a_folder_to_spill_into_while_it_is_open(tmp_path: Path) -> None:
    with connect(tmp_path) as first, connect() as second:
        folders = [spill_folder(con) for con in (first, second)]
        assert folders[0].parent == tmp_path
        assert folders[1].parent != tmp_path
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"), connect(tmp_path / "file"):
        pass


def test_a_block_of_one_database_has_one_folder(n_started: list[None], tmp_path: Path) -> None:
    with one_database(), connect() as first, connect() as second, connect(tmp_path) as third:
        assert spill_folder(first) == spill_folder(second) != spill_folder(third)
        assert spill_folder(first).is_dir()
        assert spill_folder(third).parent == tmp_path
        first.execute(MADE[0])
        with pytest.raises(duckdb.CatalogException):
            second.execute("from made")
    assert n_started == []


def test_a_database_that_has_failed_is_replaced(n_started: list[None]) -> None:
    for con in shared_duckdb._databases.values():
        con.close()
    use_twice(None)
    assert len(n_started) == 1
