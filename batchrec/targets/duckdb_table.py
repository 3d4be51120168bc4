"""A table in a DuckDB file as target: the rows of a run date are replaced in one transaction."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from batchrec.errors import ConfigError, RefusedError, StoreError, one_line
from batchrec.system.atomic import check_writable_file
from batchrec.tables.queries import hide_progress_bar, identifier
from batchrec.targets.rows import RUN_DATE, check_columns, open_rows, schema_of
from batchrec.targets.stores import CHANGE_TABLE, TableTarget, check_path, check_runs
from batchrec.targets.target import PublishedTable

# A query of another process has the file open for seconds: wait for its end rather than lose a night.
LOCK_PATIENCE_S = 60.0
# DuckDB looks for parameters after a question mark, and takes a backslash for a slash.
_MISREAD = "?\\"
_LOCKED = "Could not set lock"
_ROWS = "batchrec_rows"
_RUNS_COLUMNS = [RUN_DATE, "run_id", "model_id", "sha256"]


@dataclass(frozen=True)
class DuckdbTable(TableTarget):
    """A table in a file of DuckDB: duckdb://file.db?table=name. The table NAME_runs records what made each run date."""

    def __post_init__(self) -> None:
        self.url.check_parameters({"table"})
        self.url.parameter("table", "similar_items" if self.layout == "similar" else "recs")

    @property
    def file(self) -> Path:
        """The file of the database."""
        return Path(self.url.path)

    def check_writable(self) -> None:
        """Raise ConfigError if the file cannot be written, or if the table has other columns; StoreError if locked.

        A view, a missing schema and other obstacles are found by the statements of a publication without rows, rolled
        back.
        """
        check_path(self.file.absolute(), _MISREAD, self)
        check_writable_file(self.file)
        schemas = self.url.parameters["table"].split(".")[:-1]
        if not self.file.exists():
            if schemas[-1:] not in ([], ["main"]):
                raise ConfigError(f"{self.url}: {self.file} does not exist. Create it with the schema {schemas[-1]}")
            return
        with self._opened() as con:
            columns = _columns(con, self._table)
            if columns:
                check_columns(columns, self.layout, self.url)
            con.begin()
            # Of a table that is not there yet one column will do.
            self._make_tables(con, pa.schema([(RUN_DATE, pa.date32())]))
            for name in (self._table, self._runs):
                con.execute(f"delete from {name} where false")  # noqa: S608 - quoted
                con.execute(f"insert into {name} select * from {name} where false")  # noqa: S608 - quoted
            con.rollback()

    def check_table(self, table: PublishedTable) -> None:
        """Raise ConfigError if the table exists, with other columns or types than the rows."""
        if not self.file.exists():
            return
        with self._opened(read_only=True) as con:
            if _columns(con, self._table):
                con.register(_ROWS, schema_of(table, self.layout, is_dated=True).empty_table())
                self._check_types(con)

    def sync(self) -> None:
        """Do nothing: DuckDB waits for the disk when it commits."""

    def sha256(self) -> str | None:
        """Return the SHA-256 that is recorded for the newest run date; None if there is none."""
        if not self.file.exists():
            return None
        with self._opened(read_only=True) as con:
            runs = _columns(con, self._runs)
            # Somebody may have dropped the table only.
            if not runs or not _columns(con, self._table):
                return None
            check_runs(runs, _RUNS_COLUMNS, self._runs, self.url)
            newest = con.execute(f"select sha256 from {self._runs} order by {RUN_DATE} desc limit 1").fetchone()  # noqa: S608 - quoted
        return None if newest is None else str(newest[0])

    @property
    def _table(self) -> str:
        return _quoted(self.url.parameters["table"])

    @property
    def _runs(self) -> str:
        return _quoted(self.url.parameters["table"] + "_runs")

    @contextmanager
    def _publishing(self, table: PublishedTable, replaced: str) -> Iterator[None]:
        with self._opened() as con, open_rows(table, self.layout, is_dated=True) as rows:
            con.begin()
            self._make_tables(con, rows.schema)
            self._check_types(con)
            con.register(_ROWS, rows)
            for name in (self._table, self._runs):
                con.execute(f"delete from {name} where {RUN_DATE} {replaced} $date", {"date": table.run_date})  # noqa: S608
            con.execute(f"insert into {self._table} by name select * from {_ROWS}")  # noqa: S608 - quoted
            run = [table.run_date, table.run_id, table.model_id, table.sha256]
            con.execute(f"insert into {self._runs} values (?, ?, ?, ?)", run)  # noqa: S608 - quoted
            yield
            con.commit()

    def _make_tables(self, con: duckdb.DuckDBPyConnection, schema: pa.Schema) -> None:
        """Make the tables if they do not exist. Raises ConfigError if NAME_runs is another table."""
        con.register(_ROWS, schema.empty_table())
        con.execute(f"create table if not exists {self._table} as select * from {_ROWS}")  # noqa: S608 - quoted
        con.execute(
            f"create table if not exists {self._runs} "
            f"({RUN_DATE} date not null, run_id varchar, model_id varchar, sha256 varchar)"
        )
        check_runs(_columns(con, self._runs), _RUNS_COLUMNS, self._runs, self.url)

    def _check_types(self, con: duckdb.DuckDBPyConnection) -> None:
        """Raise ConfigError if the table has other columns than the rows, RefusedError if they have other types."""
        columns = _columns(con, self._table)
        check_columns(columns, self.layout, self.url)
        for name, type_ in _columns(con, _ROWS).items():
            if columns.get(name) != type_:
                raise RefusedError(
                    f"{self.url}: column {name} is {columns.get(name, 'missing')}, but that of the new rows is "
                    f"{type_}. Change the table's column, or pass another table"
                )

    @contextmanager
    def _opened(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file; wait for another process that has it open. Errors of DuckDB in the block name the table."""
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                # An absolute path: md:recs.db would be taken for MotherDuck, sqlite:recs.db for SQLite.
                con = duckdb.connect(self.file.absolute(), read_only=read_only)
                break
            except duckdb.Error as error:
                if _LOCKED not in str(error) or time.monotonic() > deadline:
                    raise StoreError(f"{self.url}: cannot be opened: {one_line(error)}") from error
                time.sleep(0.05)
        try:
            hide_progress_bar(con)
            con.execute("set python_enable_replacements = false")
            # DuckDB opens CSV, JSON and Parquet files too, as a database in memory: what is written there is lost.
            if (None,) in con.execute("select path from duckdb_databases() where not internal").fetchall():
                raise StoreError(f"{self.url}: {self.file} is not a database of DuckDB. Pass another --out")
            yield con
        except (duckdb.ConstraintException, duckdb.ConversionException) as error:
            raise RefusedError(
                f"{self.url}: refuses the rows: {one_line(error).rstrip('.')}. {CHANGE_TABLE}"
            ) from error
        except duckdb.Error as error:
            raise StoreError(f"{self.url}: cannot be written: {one_line(error)}") from error
        finally:
            con.close()


def _quoted(name: str) -> str:
    """Return a name, maybe with a schema before a dot, quoted for SQL."""
    return ".".join(map(identifier, name.split(".")))


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return the columns of a table or view with their types; none if it does not exist."""
    try:
        return {name: type_ for name, type_, *_ in con.execute(f"describe {table}").fetchall()}
    except duckdb.CatalogException:
        return {}
