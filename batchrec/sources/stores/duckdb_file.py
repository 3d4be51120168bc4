"""Tables of a DuckDB file: duckdb://file.db?table=name, or ?query=; the file is opened read-only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from batchrec.errors import ConfigError, one_line
from batchrec.sources.stores.dialect import Dialect
from batchrec.sources.stores.table_source import Since, TableSource
from batchrec.system.signals import interrupted_by_signals
from batchrec.system.stores import store_error
from batchrec.system.urls import Url
from batchrec.tables.queries import use_settings

_DIALECT = Dialect()
_BATCH_ROWS = 1 << 16


class DuckDBSource(TableSource):
    """A table, view or query of a DuckDB file."""

    def __init__(self, url: Url, connection: duckdb.DuckDBPyConnection, rows: str) -> None:
        self._url = url
        self._connection = connection
        self._rows = rows

    @classmethod
    @contextmanager
    def open(cls, url: Url) -> Iterator["DuckDBSource"]:
        """Open the file. Raises StoreError if it is missing, no database, or locked by a program that writes."""
        rows = _DIALECT.rows_of(url)
        try:
            connection = duckdb.connect(url.path, read_only=True)
        except duckdb.Error as error:
            raise store_error(url, "read", error) from error
        with connection, interrupted_by_signals(connection.interrupt):
            use_settings(connection)
            # Otherwise HUGEINT and UUID become decimals and text on the way.
            connection.execute("set arrow_lossless_conversion = true")
            yield cls(url, connection, rows)

    def schema(self) -> pa.Schema:
        """Return the columns of the table or the query."""
        return self._run(_DIALECT.select_nothing(self._rows)).schema

    def read(self, columns: Sequence[str], since: Since | None = None) -> pa.RecordBatchReader:
        """Return the rows, computed while they are read."""
        names = list(map(_DIALECT.name, columns))
        return self._run(_DIALECT.select(self._rows, names, self.schema(), since))

    def _run(self, sql: str) -> pa.RecordBatchReader:
        try:
            return self._connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        except duckdb.Error as error:
            if isinstance(error, duckdb.ProgrammingError) and "query" in self._url.parameters:
                raise ConfigError(f"{self._url}: the query cannot be run: {one_line(error)}") from error
            raise store_error(self._url, "read", error) from error
