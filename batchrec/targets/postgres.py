"""A table of Postgres as target: postgresql://host/db?table=schema.name. The password comes from .pgpass or PGPASSWORD.

A publication copies its rows into a temporary table, which ends with the connection, so that a killed run leaves
nothing. One transaction then replaces the rows of the run date. A second table, <name>_runs, says which run made them.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from batchrec.errors import ConfigError, StoreError, one_line
from batchrec.system.stores import needs_extra, store_errors
from batchrec.tables.queries import query_text
from batchrec.targets.rows import check_columns, open_rows
from batchrec.targets.stores import ATTEMPTS, TableTarget, check_types
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


@dataclass(frozen=True)
class PostgresTarget(TableTarget):
    """A table of Postgres. In the layout nested the recommendations are jsonb: ADBC copies no lists of structs."""

    def __post_init__(self) -> None:
        self.url.check_parameters({"table"})
        if not all(self._schema_and_name) or "." in self._schema_and_name[1]:
            raise ConfigError(f"{self}: expected a table like ?table=public.recs")

    def check_writable(self) -> None:
        """Raise ConfigError or StoreError if the table has other columns, or the database cannot be reached or written.

        That the schema exists and the user has all rights is part of it.
        """
        with self._errors(), self._connected() as connection, connection.cursor() as cursor:
            schema, name = self._schema_and_name
            cursor.execute(query_text("targets/postgres_rights"), (schema, name, f"{name}_runs"))
            missing = [needed for needed, is_granted in cursor.fetchall() if not is_granted]
            if missing:
                raise StoreError(f"{self}: missing for this user: {', '.join(missing)}. Create it, or grant it")
            existing = _columns(cursor, self._table)
            if existing:
                check_columns(existing, self.layout, self)

    def sync(self) -> None:
        """Do nothing: Postgres answers when its commit is safe."""

    def sha256(self) -> str | None:
        """Return the SHA-256 of the table of the newest run date, from <name>_runs; None if it is not known."""
        with self._errors(), self._connected() as connection, connection.cursor() as cursor:
            if not _columns(cursor, self._runs):
                return None
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
            with connection.cursor() as cursor, open_rows(table, "long", is_dated=True) as rows:
                cursor.adbc_ingest(_ROWS, rows.schema.empty_table(), mode="create", temporary=True)
                for batch in rows:
                    cursor.adbc_ingest(_ROWS, batch, mode="append", temporary=True)
                layout = "nested" if self.layout == "nested" else "long"
                cursor.execute(f"create temporary view {_VIEW} as {query_text(f'targets/postgres_{layout}')}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _switch(self, connection: "Connection", table: PublishedTable, replaced: str) -> None:
        """Replace the rows of the run dates that are `replaced`, "=" or ">=" the table's, in one transaction."""
        with connection.cursor() as cursor:
            cursor.execute("begin")
            # Two runs at the same time would both insert: the later one waits here.
            cursor.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", (self._table,))
            cursor.fetchall()
            rows = _columns(cursor, _VIEW)
            if not _columns(cursor, self._table):
                cursor.execute(f"create table {self._table} as table {_VIEW} with no data")
                cursor.execute(f"create index on {self._table} (run_date, {_quoted(next(iter(rows)))})")
            if not _columns(cursor, self._runs):
                cursor.execute(f"create table {self._runs} {_RUNS}")
            check_types(_columns(cursor, self._table), rows, self)
            names = ", ".join(map(_quoted, rows))
            for name in (self._table, self._runs):
                cursor.execute(f"delete from {name} where run_date {replaced} $1", (table.run_date,))  # noqa: S608
            cursor.execute(f"insert into {self._table} ({names}) select {names} from {_VIEW}")  # noqa: S608
            cursor.execute(
                f"insert into {self._runs} select $1, $2, $3, $4, count(*), now() from {_VIEW}",  # noqa: S608
                (table.run_date, table.run_id, table.model_id, table.sha256),
            )
            cursor.execute("commit")

    @property
    def _schema_and_name(self) -> tuple[str, str]:
        table = self.url.parameter("table", "public.similar_items" if self.layout == "similar" else "public.recs")
        schema, _, name = (table if "." in table else f"public.{table}").partition(".")
        return schema, name

    @property
    def _table(self) -> str:
        return ".".join(map(_quoted, self._schema_and_name))

    @property
    def _runs(self) -> str:
        schema, name = self._schema_and_name
        return f"{_quoted(schema)}.{_quoted(f'{name}_runs')}"

    def _connect(self) -> "Connection":
        from adbc_driver_postgresql import dbapi

        connection: Connection = dbapi.connect(self.url.address, autocommit=True)
        return connection

    def _connected(self) -> AbstractContextManager["Connection"]:
        return closing(self._connect())

    def _errors(self) -> AbstractContextManager[None]:
        with needs_extra(self, "postgres"):
            from adbc_driver_manager import Error
        return store_errors(self, "read or written", Error)


def _columns(cursor: "Cursor", name: str) -> dict[str, str]:
    """Return the types of a table's columns by their names, in order; nothing if the table does not exist."""
    cursor.execute(query_text("targets/postgres_columns"), (name,))
    return dict(cursor.fetchall())


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _retried(step: Callable[[], _Result]) -> _Result:
    """Repeat a step up to ATTEMPTS times if the connection is lost, or if Postgres asks to repeat the transaction."""
    from adbc_driver_manager import Error

    for attempt in range(1, ATTEMPTS):
        try:
            return step()
        except Error as error:
            if not _is_temporary(error):
                raise
            _log.warning("%s; trying again", one_line(error))
            time.sleep(2**attempt / 4)
    return step()


def _is_temporary(error: "Error") -> bool:
    from adbc_driver_manager import AdbcStatusCode

    if not error.sqlstate:
        # The server did not answer.
        return bool(error.status_code == AdbcStatusCode.IO)
    # Classes of SQLSTATE: connection lost, the server shuts down or starts, a deadlock.
    return error.sqlstate[:2] in ("08", "57", "40")
