"""A table of Postgres as target: postgresql://host/db?table=schema.name. The password comes from .pgpass or PGPASSWORD.

A publication copies its rows into a temporary table, which ends with the connection, so that a killed run leaves
nothing. One transaction then replaces the rows of the run date. A second table, <name>_runs, says which run made them.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from batchrec.errors import ConfigError, RefusedError, StoreError, one_line
from batchrec.system.signals import interrupted_by_signals
from batchrec.system.stores import needs_extra
from batchrec.system.urls import connection_uri
from batchrec.tables.queries import identifier, query_text
from batchrec.targets.rows import check_columns, open_rows, schema_of
from batchrec.targets.stores import ATTEMPTS, CHANGE_TABLE, TableTarget, check_runs, check_types
from batchrec.targets.target import PublishedTable

if TYPE_CHECKING:
    from adbc_driver_manager import Error
    from adbc_driver_manager.dbapi import Connection, Cursor

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)

# The copied rows, and the view of them in the layout of the table; the queries in sql/targets/ name them too.
_ROWS = "batchrec_rows"
_VIEW = "pg_temp.batchrec_layout"
_RUNS = (
    "(run_date date primary key, run_id text not null, model_id text not null, recs_sha256 text not null, "
    "n_rows bigint not null, published_at timestamp with time zone not null)"
)
_RUNS_COLUMNS = [column.split()[0] for column in _RUNS.strip("()").split(", ")]
# Postgres cuts longer names off, so that two tables could be one.
_NAME_BYTES = 63
_WAIT_FOR_DISK = (
    "select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'"
)
_STATEMENT = re.compile(r"Failed to execute query '.*': (?=\w+: )", re.DOTALL)
# SQLSTATE: a value that a column or the encoding cannot hold, a constraint, the check of a view, a trigger's own error.
_REFUSALS = ("22", "23", "44", "P0001")


@dataclass(frozen=True)
class PostgresTarget(TableTarget):
    """A table of Postgres. In the layout nested the recommendations are jsonb: ADBC copies no lists of structs."""

    def __post_init__(self) -> None:
        self.url.check_parameters({"table"})
        if not all(self._schema_and_name) or "." in self._schema_and_name[1]:
            raise ConfigError(f"{self}: expected a table like ?table=public.recs")
        for name in (self._schema_and_name[0], f"{self._schema_and_name[1]}_runs"):
            n_bytes = len(name.encode())
            if n_bytes > _NAME_BYTES:
                raise ConfigError(
                    f"{self}: the name {name} has {n_bytes} bytes; expected at most {_NAME_BYTES}. Pass a shorter one"
                )

    def check_writable(self) -> None:
        """Raise ConfigError or StoreError if the table has other columns, or the database cannot be reached or written.

        That the schema exists and the user has all rights is part of it. A view that cannot be changed, a server that
        is read-only and other obstacles are found by the statements of a publication without rows, rolled back.
        """
        with self._errors(), self._connected() as connection, connection.cursor() as cursor:
            self._begin(cursor)
            schema, name = self._schema_and_name
            cursor.execute(query_text("targets/postgres_rights"), (schema, name, f"{name}_runs"))
            missing = [needed for needed, is_granted in cursor.fetchall() if not is_granted]
            if missing:
                raise StoreError(f"{self}: missing for this user: {', '.join(missing)}. Create it, or grant it")
            existing, runs = _columns(cursor, self._table), _columns(cursor, self._runs)
            if existing:
                check_columns(existing, self.layout, self)
            check_runs(runs, _RUNS_COLUMNS, self._runs, self)
            cursor.execute(f"create temporary table {_ROWS} (run_date date)")
            for table, columns in ((self._table, existing), (self._runs, runs)):
                if columns:
                    cursor.execute(f"delete from {table} where false")  # noqa: S608 - quoted
                    cursor.execute(f"insert into {table} select * from {table} where false")  # noqa: S608 - quoted
                else:
                    cursor.execute(f"create table {table} (run_date date)")
            cursor.execute("rollback")

    def check_table(self, table: PublishedTable) -> None:
        """Raise ConfigError if the table exists, with other columns or types than the rows."""
        with self._errors(), self._connected() as connection, connection.cursor() as cursor:
            existing = _columns(cursor, self._table)
            if existing:
                self._view_rows(cursor, schema_of(table, "long", is_dated=True))
                check_types(existing, _columns(cursor, _VIEW), self)

    def sync(self) -> None:
        """Do nothing: a publication waits until its commit is safe."""

    def sha256(self) -> str | None:
        """Return the SHA-256 of the table of the newest run date, from <name>_runs; None if it is not known."""
        with self._errors(), self._connected() as connection, connection.cursor() as cursor:
            runs = _columns(cursor, self._runs)
            # Somebody may have dropped the table only.
            if not runs or not _columns(cursor, self._table):
                return None
            check_runs(runs, _RUNS_COLUMNS, self._runs, self)
            cursor.execute(f"select recs_sha256 from {self._runs} order by run_date desc limit 1")  # noqa: S608 - quoted
            newest = cursor.fetchone()
            return None if newest is None else str(newest[0])

    @contextmanager
    def _publishing(self, table: PublishedTable, replaced: str) -> Iterator[None]:
        with self._errors():
            connection: Connection | None = _retried(lambda: self._copied(table))
        try:
            yield

            def switch() -> None:
                nonlocal connection
                if connection is None:
                    connection = self._copied(table)
                try:
                    self._switch(connection, table, replaced)
                except BaseException:
                    connection.close()
                    connection = None
                    raise

            # Safe to repeat even if the answer to a commit was lost: it replaces what it has written.
            with self._errors():
                _retried(switch)
        finally:
            if connection is not None:
                connection.close()

    def _copied(self, table: PublishedTable) -> "Connection":
        """Copy the rows of a table into a new connection's temporary table."""
        connection = self._connect()
        try:
            with (
                interrupted_by_signals(connection.adbc_cancel),
                connection.cursor() as cursor,
                open_rows(table, "long", is_dated=True) as rows,
            ):
                self._view_rows(cursor, rows.schema)
                for batch in rows:
                    cursor.adbc_ingest(_ROWS, batch, mode="append", temporary=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _view_rows(self, cursor: "Cursor", schema: pa.Schema) -> None:
        """Make the temporary table for rows by a schema, and the view of them in the layout of the table."""
        cursor.adbc_ingest(_ROWS, schema.empty_table(), mode="create", temporary=True)
        layout = "nested" if self.layout == "nested" else "long"
        cursor.execute(f"create temporary view {_VIEW} as {query_text(f'targets/postgres_{layout}')}")

    def _switch(self, connection: "Connection", table: PublishedTable, replaced: str) -> None:
        """Replace the rows of the run dates that are `replaced`, "=" or ">=" the table's, in one transaction."""
        with interrupted_by_signals(connection.adbc_cancel), connection.cursor() as cursor:
            self._begin(cursor)
            # A user or a database may be set not to wait for the disk.
            cursor.execute(_WAIT_FOR_DISK)
            cursor.fetchall()
            # Less would round the scores in jsonb.
            cursor.execute("set local extra_float_digits = 1")
            rows = _columns(cursor, _VIEW)
            if not _columns(cursor, self._table):
                cursor.execute(f"create table {self._table} as table {_VIEW} with no data")
                cursor.execute(f"create index on {self._table} (run_date, {identifier(next(iter(rows)))})")
            if not _columns(cursor, self._runs):
                cursor.execute(f"create table {self._runs} {_RUNS}")
            check_types(_columns(cursor, self._table), rows, self)
            names = ", ".join(map(identifier, rows))
            for name in (self._table, self._runs):
                cursor.execute(f"delete from {name} where run_date {replaced} $1", (table.run_date,))  # noqa: S608
            cursor.execute(f"insert into {self._table} ({names}) select {names} from {_VIEW}")  # noqa: S608
            n_rows = self._count(cursor, table)
            cursor.execute(
                f"insert into {self._runs} values ($1, $2, $3, $4, $5, now())",  # noqa: S608
                (table.run_date, table.run_id, table.model_id, table.sha256, n_rows),
            )
            cursor.execute("commit")

    def _begin(self, cursor: "Cursor") -> None:
        """Begin a transaction. Two runs at the same time would both create or insert: the later one waits here."""
        # A role or a database may be set to another isolation level: after the wait its snapshot would lack what the
        # other run has committed.
        cursor.execute("begin isolation level read committed")
        cursor.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", (self._table,))
        cursor.fetchall()

    def _count(self, cursor: "Cursor", table: PublishedTable) -> int:
        """Return the number of rows of a run date. Raises RefusedError if it is not that of the copied rows."""
        of_date = f"select count(*) from {self._table} where run_date = $1"  # noqa: S608 - quoted
        cursor.execute(f"select ({of_date}), (select count(*) from {_VIEW})", (table.run_date,))  # noqa: S608 - quoted
        ((n_rows, n_copied),) = cursor.fetchall()
        if n_rows != n_copied:
            raise RefusedError(
                f"{self}: holds {n_rows} rows of {table.run_date} after {n_copied} were inserted; expected as many. A "
                "trigger, a rule or a policy of the table changes what is written. Publish to a table without it"
            )
        return int(n_rows)

    @property
    def _schema_and_name(self) -> tuple[str, str]:
        table = self.url.parameter("table", "public.similar_items" if self.layout == "similar" else "public.recs")
        schema, _, name = (table if "." in table else f"public.{table}").partition(".")
        return schema, name

    @property
    def _table(self) -> str:
        return ".".join(map(identifier, self._schema_and_name))

    @property
    def _runs(self) -> str:
        schema, name = self._schema_and_name
        return f"{identifier(schema)}.{identifier(f'{name}_runs')}"

    def _connect(self) -> "Connection":
        from adbc_driver_postgresql import dbapi

        connection: Connection = dbapi.connect(connection_uri(self.url), autocommit=True)
        return connection

    @contextmanager
    def _connected(self) -> Iterator["Connection"]:
        with closing(self._connect()) as connection, interrupted_by_signals(connection.adbc_cancel):
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with needs_extra(self, "postgres"):
            from adbc_driver_manager import Error
        try:
            yield
        except Error as error:
            if str(error.sqlstate or "").startswith(_REFUSALS):
                raise RefusedError(f"{self}: refuses the rows: {_text(error)}. {CHANGE_TABLE}") from error
            raise StoreError(f"{self}: cannot be read or written: {_text(error)}") from error


def _text(error: "Error") -> str:
    """Return the message as one line, without the statement, which comes first and may fill all of it."""
    return one_line(Exception(_STATEMENT.sub("", str(error))))


def _columns(cursor: "Cursor", name: str) -> dict[str, str]:
    """Return the types of a table's columns by their names, in order; nothing if the table does not exist."""
    cursor.execute(query_text("targets/postgres_columns"), (name,))
    return dict(cursor.fetchall())


def _retried(step: Callable[[], _Result]) -> _Result:
    """Repeat a step up to ATTEMPTS times if the connection is lost, or if Postgres asks to repeat the transaction."""
    from adbc_driver_manager import Error

    for attempt in range(1, ATTEMPTS):
        try:
            return step()
        except Error as error:
            if not _is_temporary(error):
                raise
            _log.warning("%s; trying again", _text(error))
            time.sleep(2**attempt / 4)
    return step()


def _is_temporary(error: "Error") -> bool:
    from adbc_driver_manager import AdbcStatusCode

    if not error.sqlstate:
        # The server did not answer.
        return bool(error.status_code == AdbcStatusCode.IO)
    # SQLSTATE: connection lost, the server shuts down or starts, a deadlock.
    return str(error.sqlstate).startswith(("08", "57P", "40"))
