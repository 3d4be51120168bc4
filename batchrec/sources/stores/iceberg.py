"""Tables of Apache Iceberg: iceberg://catalog/db.table; ?snapshot=ID.

The catalog is one of pyiceberg's configuration: ~/.pyiceberg.yaml, or variables such as PYICEBERG_CATALOG__LAKE__URI.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import pyarrow as pa

from batchrec.errors import ConfigError, StoreError
from batchrec.sources.stores.table_source import Since, TableSource
from batchrec.system.stores import needs_extra, store_errors
from batchrec.system.urls import Url


class IcebergSource(TableSource):
    """A snapshot of an Iceberg table."""

    def __init__(self, url: Url, table: Any, snapshot_id: int | None) -> None:
        self._url = url
        self._table = table
        self._snapshot_id = snapshot_id

    @classmethod
    @contextmanager
    def open(cls, url: Url) -> Iterator["IcebergSource"]:
        """Open the newest snapshot, or the one that the URL asks for."""
        with needs_extra(url, "iceberg"):
            from pyiceberg.catalog import load_catalog
        url.check_parameters({"snapshot"})
        catalog, _, name = url.path.partition("/")
        snapshot = url.parameters.get("snapshot")
        if not catalog or "." not in name:
            raise ConfigError(f"{url}: expected iceberg://catalog/db.table")
        if snapshot is not None and not snapshot.isdigit():
            raise ConfigError(f"{url}: snapshot {snapshot}: expected a whole number")
        # A catalog is reached by any of several libraries, each with errors of its own.
        with store_errors(url, "read", Exception):
            table = load_catalog(catalog).load_table(name)
        if snapshot is not None and table.snapshot_by_id(int(snapshot)) is None:
            raise StoreError(f"{url}: the table has no snapshot {snapshot}")
        yield cls(url, table, None if snapshot is None else int(snapshot))

    def schema(self) -> pa.Schema:
        """Return the columns of the snapshot."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        with store_errors(self._url, "read", Exception):
            return schema_to_pyarrow(self._table.scan(snapshot_id=self._snapshot_id).projection())

    def read(self, columns: Sequence[str], since: Since | None = None) -> pa.RecordBatchReader:
        """Return the rows of the live files, without deleted rows."""
        table_schema = self.schema()
        schema = pa.schema([table_schema.field(name) for name in columns])
        rows = None if since is None else _not_before(table_schema.field(since.column), since)
        chosen = {"selected_fields": tuple(columns), "snapshot_id": self._snapshot_id}
        scan = self._table.scan(**chosen) if rows is None else self._table.scan(row_filter=rows, **chosen)
        return pa.RecordBatchReader.from_batches(schema, self._batches(scan, schema))

    def _batches(self, scan: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        from pyiceberg.io.pyarrow import ArrowScan

        with store_errors(self._url, "read", Exception):
            arrow_scan = ArrowScan(self._table.metadata, self._table.io, scan.projection(), scan.row_filter)
            # File by file: for all files at once pyiceberg reads ahead until all are in memory.
            for file in scan.plan_files():
                for batch in arrow_scan.to_record_batches([file]):
                    yield batch.select(schema.names).cast(schema)


def _not_before(column: pa.Field, since: Since) -> Any:
    """Return the filter of a column of times; None if the column has numbers or text."""
    from pyiceberg import expressions

    # Its types do not show the arguments of its constructors.
    of: Any = expressions
    utc = since.start.astimezone(UTC)
    if pa.types.is_timestamp(column.type):
        bound = utc.isoformat() if column.type.tz else utc.replace(tzinfo=None).isoformat()
    elif pa.types.is_date(column.type):
        bound = utc.date().isoformat()
    else:
        return None
    return of.Or(of.GreaterThanOrEqual(column.name, bound), of.IsNull(column.name))
