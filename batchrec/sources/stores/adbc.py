"""Tables of databases by ADBC, which returns rows as Arrow. A database is a class with its driver and its SQL."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self

import pyarrow as pa

from batchrec.errors import ConfigError, one_line
from batchrec.sources.stores.dialect import Dialect
from batchrec.sources.stores.table_source import Since, TableSource
from batchrec.system.signals import interrupted_by_signals
from batchrec.system.stores import needs_extra, store_errors
from batchrec.system.urls import Url


class AdbcSource(TableSource):
    """A table, view or query of a database. extra: of batchrec, which installs the driver."""

    extra: ClassVar[str]
    dialect: ClassVar[Dialect] = Dialect()

    def __init__(self, url: Url, connection: Any, rows: str, stack: ExitStack) -> None:
        self._url = url
        self._connection = connection
        self._rows = rows
        self._stack = stack

    @classmethod
    @abstractmethod
    def connect(cls, url: Url) -> Any:
        """Return a connection of the driver's dbapi, which may only read if the database knows such connections."""

    @classmethod
    @contextmanager
    def open(cls, url: Url) -> Iterator[Self]:
        """Connect to the database."""
        rows = cls.dialect.rows_of(url)
        with needs_extra(url, cls.extra):
            import adbc_driver_manager
        with ExitStack() as stack:
            with needs_extra(url, cls.extra), store_errors(url, "read", adbc_driver_manager.Error, OSError):
                connection = stack.enter_context(cls.connect(url))
            with interrupted_by_signals(connection.adbc_cancel):
                yield cls(url, connection, rows, stack)

    def schema(self) -> pa.Schema:
        """Return the columns of the table or the query."""
        return self._run(self.dialect.select_nothing(self._rows)).schema

    def read(self, columns: Sequence[str], since: Since | None = None) -> pa.RecordBatchReader:
        """Return the rows as the database sends them."""
        schema = self.schema()
        expressions = [self.expression(schema.field(schema.names.index(name))) for name in columns]
        return self._run(self.dialect.select(self._rows, expressions, schema, since))

    def expression(self, column: pa.Field) -> str:
        """Return the SQL that selects a column."""
        return self.dialect.name(column.name)

    def _run(self, sql: str) -> pa.RecordBatchReader:
        from adbc_driver_manager import Error, NotSupportedError, ProgrammingError

        # It must stay open as long as its rows are read.
        cursor = self._stack.enter_context(self._connection.cursor())
        with store_errors(self._url, "read", Error, OSError):
            try:
                cursor.execute(sql)
                return cursor.fetch_record_batch()
            except (NotSupportedError, ProgrammingError) as error:
                if "query" not in self._url.parameters:
                    raise
                raise ConfigError(f"{self._url}: the query cannot be run: {one_line(error)}") from error
