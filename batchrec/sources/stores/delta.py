"""Tables of Delta Lake: delta:///folder, delta+s3://bucket/folder; ?version=N or ?timestamp=2024-06-01T00:00:00Z."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from batchrec.errors import ConfigError, StoreError
from batchrec.sources.stores.dialect import Dialect
from batchrec.sources.stores.table_source import Since, TableSource
from batchrec.system.stores import needs_extra, store_errors
from batchrec.system.urls import Url

_DIALECT = Dialect(zoned="timestamp '{}'")
# Without them a store that does not answer is asked for three minutes.
_STORAGE_OPTIONS = {"connect_timeout": "10s", "max_retries": "3", "retry_timeout": "30s"}


class DeltaSource(TableSource):
    """A version of a Delta table."""

    def __init__(self, url: Url, table: Any) -> None:
        self._url = url
        self._table = table

    @classmethod
    @contextmanager
    def open(cls, url: Url) -> Iterator["DeltaSource"]:
        """Open the newest version, or the one that the URL asks for."""
        with needs_extra(url, "delta"):
            from deltalake import DeltaTable
            from deltalake.exceptions import DeltaError
        version, time = _version_of(url)
        store = url.scheme.partition("+")[2]
        path = f"{store}://{url.path}" if store else url.path
        with store_errors(url, "read", DeltaError, OSError):
            table = DeltaTable(path, version=version, storage_options=_STORAGE_OPTIONS if store else None)
            if time is not None:
                table.load_as_version(time)
                _check_age(url, table, time)
        yield cls(url, table)

    def schema(self) -> pa.Schema:
        """Return the columns of the version."""
        return pa.schema(self._table.schema().to_arrow())

    def read(self, columns: Sequence[str], since: Since | None = None) -> pa.RecordBatchReader:
        """Return the rows of the live files, without those of deletion vectors."""
        from deltalake import QueryBuilder
        from deltalake.exceptions import DeltaError

        sql = _DIALECT.select("batchrec_rows", list(map(_DIALECT.name, columns)), self.schema(), since)
        # Not as a pyarrow dataset, which cannot read tables with deletion vectors or mapped columns.
        with store_errors(self._url, "read", DeltaError, OSError):
            stream = QueryBuilder().register("batchrec_rows", self._table).execute(sql)
        return pa.RecordBatchReader.from_stream(stream)


def _version_of(url: Url) -> tuple[int | None, datetime | None]:
    """Return the version or the time that a URL asks for."""
    url.check_parameters({"version", "timestamp"})
    version, time = url.parameters.get("version"), url.parameters.get("timestamp")
    if version is not None and time is not None:
        raise ConfigError(f"{url}: has a version and a timestamp; expected one of them")
    if version is not None and not version.isdigit():
        raise ConfigError(f"{url}: version {version}: expected a whole number")
    try:
        asked = None if time is None else datetime.fromisoformat(time)
    except ValueError:
        raise ConfigError(f"{url}: timestamp {time}: expected a time like 2024-06-01T00:00:00Z") from None
    if asked is not None and asked.tzinfo is None:
        asked = asked.replace(tzinfo=UTC)
    return None if version is None else int(version), asked


def _check_age(url: Url, table: Any, time: datetime) -> None:
    """Raise StoreError if the oldest version is newer than a time: deltalake opens it all the same."""
    oldest_ms = table.history()[-1].get("timestamp")
    if oldest_ms is not None and oldest_ms > time.timestamp() * 1000:
        oldest = datetime.fromtimestamp(oldest_ms / 1000, UTC).isoformat(timespec="seconds")
        raise StoreError(f"{url}: no version is that old; expected a timestamp from {oldest} on")
