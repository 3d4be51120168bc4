"""Run the SELECTs of sql/, one per file, with every value bound."""

import errno
import glob
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import duckdb

from batchrec.errors import ConfigError
from batchrec.system.machine import n_cores
from batchrec.system.signals import interrupted_by_signals
from batchrec.system.temporaries import temporary_folder

# DuckDB's errors have no error number, only the text of the operating system.
_FULL = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
# In a wheel the folder is inside the package, in a checkout next to it.
_PACKAGE = Path(__file__).parent.parent
_FOLDER = next(f for f in (_PACKAGE / "sql", _PACKAGE.parent / "sql") if f.is_dir())


# The database of `one_database`, and numbers for the catalogs in it.
_shared: ContextVar[duckdb.DuckDBPyConnection | None] = ContextVar("shared database", default=None)
_numbers = count()


@cache
def query_text(name: str) -> str:
    """Return the text of sql/<name>.sql, for a database other than DuckDB."""
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def select(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> duckdb.DuckDBPyRelation:
    """Return the lazy relation of sql/<name>.sql; name: "<folder>/<query>", values: the parameters of the query."""
    return con.sql(query_text(name), params=values)


def rows_of(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> list[dict[str, Any]]:
    """Run sql/<name>.sql, and return its few rows, each by the names of the columns."""
    relation = select(con, name, **values)
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def materialize(con: duckdb.DuckDBPyConnection, name: str, reads: str | None = None, /, **values: Any) -> None:
    """Store the rows of sql/<folder>/<table>.sql as a table; name: "<folder>/<table>".

    reads: another query, whose rows the first reads by the name of its file: no view of it is needed.
    """
    # Not by a relation, which DuckDB would bind once more.
    rows = "" if reads is None else f"with {table_of(reads)} as (\n{query_text(reads)}\n)\n"
    con.execute(f"create table {table_of(name)} as\n{rows}{query_text(name)}", values or None)


def table_of(name: str) -> str:
    """Return the name of the table that `materialize` creates: "events" for "sequences/events"."""
    return name.rpartition("/")[2]


def not_from_home(path: Path) -> Path:
    """Return the same path in a form that DuckDB, which takes a leading ~ for the home folder, takes as it is."""
    return path.absolute() if str(path).startswith("~") else path


def literal(path: Path) -> str:
    """Return a path escaped so that DuckDB, which expands globs and a leading ~, reads only that file."""
    return glob.escape(str(not_from_home(path)))


def identifier(name: str) -> str:
    """Return a name of a table, schema or column quoted for the SQL of DuckDB and Postgres."""
    return '"' + name.replace('"', '""') + '"'


def is_disk_full(error: duckdb.Error) -> bool:
    """Return whether DuckDB could not spill because the disk, a quota or a file size limit is exhausted."""
    return isinstance(error, duckdb.IOException) and any(reason in str(error) for reason in _FULL)


def use_settings(con: duckdb.DuckDBPyConnection) -> None:
    """Set what every query relies on: UTC, the macros, and errors for unknown names."""
    hide_progress_bar(con)
    con.execute("set timezone = 'UTC'; set python_enable_replacements = false")
    con.execute("reset default_order; reset default_null_order; set preserve_insertion_order = false")
    for macro in ("tables/plain_text", "tables/plain_number", "tables/shard_of"):
        con.execute(query_text(macro))


def hide_progress_bar(con: duckdb.DuckDBPyConnection) -> None:
    """Hide DuckDB's progress bar, which would be drawn among our own."""
    # In a notebook without ipywidgets DuckDB draws no bar, and refuses the setting.
    with suppress(duckdb.InvalidInputException):
        con.execute("set enable_progress_bar = false")


@contextmanager
def in_file_order(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Within the block, let a scan return rows in the order of its files, which takes longer."""
    con.execute("set preserve_insertion_order = true")
    yield
    # Not after an error, which may leave the connection unusable.
    con.execute("set preserve_insertion_order = false")


def spill_folder(con: duckdb.DuckDBPyConnection) -> Path:
    """Return the folder into which a connection spills, and which is removed when the connection is closed."""
    return Path(con.execute("select current_setting('temp_directory')").fetchall()[0][0])


@contextmanager
def connect(
    spill_folder: Path | None = None,
    memory_limit: str | None = None,
    threads: int | None = None,
    *,
    is_alone: bool = False,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB in memory, in UTC. It spills into its own folder in `spill_folder`, or in the system's.

    threads: default: the number of cores that this process may use. is_alone: whether it is a DuckDB of its own also in
    a block of `one_database`, for the statements of a user: they may attach databases and set options.
    Raises ConfigError if DuckDB rejects a setting, or if memory or disk do not suffice.
    """
    parent = spill_folder or Path(gettempdir())
    with database_of(spill_folder, memory_limit, threads, is_alone=is_alone) as con:
        try:
            use_settings(con)
            # A query may run in a thread of write_parquet, which no signal reaches.
            with interrupted_by_signals(con.interrupt):
                yield con
        except duckdb.OutOfMemoryException as error:
            raise ConfigError(f"--memory-limit {memory_limit or 'not given'}: not enough memory: {error}") from error
        except duckdb.Error as error:
            if is_disk_full(error):
                raise ConfigError(
                    f"{parent}: cannot be written: {error}. Make room there, or raise --memory-limit"
                ) from error
            raise


@contextmanager
def one_database() -> Iterator[None]:
    """Within the block, let each `connect` without options open an empty catalog of one DuckDB.

    To start a DuckDB takes longer than most queries of small tables. Other threads are not concerned.
    """
    if _shared.get() is not None:
        yield
        return
    with connect() as con:
        token = _shared.set(con)
        try:
            yield
        finally:
            _shared.reset(token)


def database_of(
    spill_folder: Path | None, memory_limit: str | None, threads: int | None, *, is_alone: bool
) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Return what opens a connection of `connect`: to a DuckDB of its own, or to a catalog in that of `one_database`.

    Raises ConfigError when it is opened, as `connect`.
    """
    shared = _shared.get()
    if shared is not None and not is_alone and spill_folder is None and memory_limit is None and threads is None:
        return catalog_of(shared)
    return _open(spill_folder, memory_limit, threads)


@contextmanager
def own_folder(parent: Path | None) -> Iterator[Path]:
    """Yield an empty folder for one connection in `parent`, or in the system's folder. Raises ConfigError."""
    parent = parent or Path(gettempdir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(parent / "batchrec"))
        except OSError as error:
            raise ConfigError(f"{parent}: cannot be written: {error.strerror or error}") from error
        yield folder


@contextmanager
def catalog_of(database: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open another connection to a database, with a catalog that nobody else sees and that is dropped with it."""
    name = f"catalog_{next(_numbers)}"
    con = database.cursor()
    try:
        con.execute(f"attach ':memory:' as {name}; use {name}")
        yield con
    finally:
        con.close()
        # A fatal error, as of a damaged file, makes the whole database unusable, and must stay the one that is raised.
        with suppress(duckdb.FatalException):
            database.execute(f"detach database if exists {name}")


@contextmanager
def _open(
    spill_folder: Path | None, memory_limit: str | None, threads: int | None
) -> Iterator[duckdb.DuckDBPyConnection]:
    with own_folder(spill_folder) as spill:
        # Only `order by` determines an order, so parallel reads need not keep the order of the files.
        # DuckDB's own error for a path that is not UTF-8 does not say so.
        config: dict[str, Any] = {"temp_directory": str(spill).encode().decode(), "preserve_insertion_order": False}
        config |= {"memory_limit": memory_limit} if memory_limit else {}
        config["threads"] = threads or n_cores()
        try:
            con = duckdb.connect(config=config)
        except duckdb.Error as error:
            raise ConfigError(f"--memory-limit {memory_limit}: {error}") from error
        try:
            yield con
        finally:
            con.close()
