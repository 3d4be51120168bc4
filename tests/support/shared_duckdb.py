"""One DuckDB per test process: to start one takes 20 to 30 ms of CPU, and many tests start several.

Connections stay as separate as with a DuckDB each: each has an empty catalog and a folder of its own to spill into.
A connection still starts a DuckDB of its own for options: a limit of memory, threads, or a user's statements.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import duckdb

from batchrec.system.machine import n_cores
from batchrec.tables import queries
from batchrec.tables.queries import catalog_of, database_of, own_folder
from tests.support.shared import scratch

DATABASE_OF = "batchrec.tables.queries.database_of"

# By process, because a child of os.fork has none of the threads of its parent's DuckDB, and by number of threads.
_databases: dict[tuple[int, int], duckdb.DuckDBPyConnection] = {}

# temp_directory is a setting of all connections, but some copy files into the folder that it names.
_OWN_FOLDER = """
create temp macro current_setting(name) as
    case when name = 'temp_directory' then '{folder}' else system.main.current_setting(name) end
"""


def shared_database_of(
    spill_folder: Path | None, memory_limit: str | None, threads: int | None, *, is_alone: bool
) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Return what opens a connection of `connect`, to the DuckDB of this process unless it needs one of its own."""
    if is_alone or memory_limit is not None or threads is not None:
        return database_of(spill_folder, memory_limit, threads, is_alone=is_alone)
    block = queries._shared.get()
    return _opened(spill_folder) if block is None or spill_folder is not None else _in_block(block)


def close_databases() -> None:
    """Close the databases of this process."""
    for con in _databases.values():
        con.close()
    _databases.clear()


@contextmanager
def _opened(spill_folder: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
    # A cursor of the database per connection: threads cannot use one at the same time.
    with own_folder(spill_folder) as folder, _cursor() as database, catalog_of(database) as con:
        _name_folder(con, folder)
        yield con


@contextmanager
def _in_block(block: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    with database_of(None, None, None, is_alone=False) as con:
        _name_folder(con, queries.spill_folder(block))
        yield con


def _name_folder(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    con.execute(_OWN_FOLDER.format(folder=str(folder).replace("'", "''")))


def _cursor() -> duckdb.DuckDBPyConnection:
    """Return another connection to the database of this process, which is started if there is none that works."""
    key = os.getpid(), n_cores()
    if key in _databases:
        # A fatal error in one test must not end the others.
        try:
            return _databases[key].cursor().execute("select 1")
        except duckdb.Error:
            del _databases[key]
    folder = scratch() / f"spilled-{os.getpid()}"
    con = duckdb.connect(config={"temp_directory": str(folder), "preserve_insertion_order": False, "threads": key[1]})
    # The statements of a user attach it: they fail if they would run in this database.
    con.execute("attach ':memory:' as batchrec_query")
    return _databases.setdefault(key, con).cursor()
