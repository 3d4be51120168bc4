"""A table of Delta Lake as target: delta:///folder, or delta+s3://bucket/folder. One run date is one partition.

A publication writes its Parquet files first. One commit then removes the old files of the run date and adds the new
ones. On S3 the commit is a conditional put, by which deltalake notices other writers without a lock.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import ConfigError, StoreError
from batchrec.system.atomic import check_writable
from batchrec.system.disk import put_on_disk
from batchrec.system.stores import needs_extra, store_errors
from batchrec.targets.parts import write_parts
from batchrec.targets.rows import RUN_DATE, check_columns, open_rows, schema_of
from batchrec.targets.stores import ATTEMPTS, TableTarget, check_path, check_types, newest_sha256, types_of
from batchrec.targets.target import PublishedTable

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.fs import DeltaStorageHandler
    from deltalake.transaction import AddAction

_LOG = "_delta_log"
_PROBE = ".batchrec-probe"
# deltalake takes a path for a URL: it creates a table elsewhere, or finds none of its commits.
_MISREAD = "?#%\\"
# Features of Delta's protocol that demand nothing of who adds and removes whole files of our columns, unless a property
# turns them on. deltalake commits to tables with these; a table of Databricks often has others.
_HARMLESS_FEATURES = {
    "allowColumnDefaults",
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "deletionVectors",
    "generatedColumns",
    "identityColumns",
    "invariants",
    "timestampNtz",
    "v2Checkpoint",
    "variantType",
}


@dataclass(frozen=True)
class DeltaTarget(TableTarget):
    """A table of Delta Lake, partitioned by run_date."""

    def __post_init__(self) -> None:
        self.url.check_parameters(set())
        if not self.url.path.strip("/"):
            raise ConfigError(f"{self}: expected a folder, like delta:///folder or delta+s3://bucket/folder")

    def check_writable(self) -> None:
        """Raise ConfigError or StoreError if the table has other columns, or its place cannot be reached or written."""
        folder = self._folder
        if folder is not None:
            check_path(folder, _MISREAD, self)
        with self._errors():
            existing = self._existing()
            if existing is not None:
                self._check(existing)
            if folder is not None:
                check_writable(folder / RUN_DATE if folder.is_dir() else folder)
            else:
                with self._files().open_output_stream(_PROBE) as probe:
                    pq.write_table(pa.table({RUN_DATE: []}), probe)
                self._files().delete_file(_PROBE)

    def check_table(self, table: PublishedTable) -> None:
        """Raise ConfigError if the table exists, with other columns or types than the rows."""
        with self._errors():
            existing = self._existing()
            if existing is not None:
                self._check_types(existing, schema_of(table, self.layout, is_dated=True))

    def sync(self) -> None:
        """Wait until the disk holds the newest commit."""
        log = None if self._folder is None else self._folder / _LOG
        if log is not None and log.is_dir():
            put_on_disk([*sorted(log.glob("*.json"))[-1:], log])

    def sha256(self) -> str | None:
        """Return the SHA-256 of the table of the newest run date, from the history; None if it is not known."""
        with self._errors():
            existing = self._existing()
            if existing is None:
                return None
            run_dates = [partition[RUN_DATE] for partition in existing.partitions()]
            return newest_sha256(run_dates, _not_undone(existing.history()))

    @contextmanager
    def _publishing(self, table: PublishedTable, replaced: str) -> Iterator[None]:
        with self._errors(), open_rows(table, self.layout, is_dated=True) as rows:
            schema = self._open_or_create(rows.schema).schema()
            paths = self._write(rows, table)
        try:
            yield
        except BaseException:
            self._delete(paths)
            raise
        with self._errors():
            self._commit(table, [self._add_action(path, table) for path in paths], replaced, schema)
            self.sync()

    def _write(self, rows: pa.RecordBatchReader, table: PublishedTable) -> list[str]:
        """Write the rows, without the run date, which is in the name of the folder. Returns the paths of the files."""
        folder = f"{RUN_DATE}={table.run_date}"
        names = [name for name in rows.schema.names if name != RUN_DATE]
        schema = pa.schema([rows.schema.field(name) for name in names])
        created: list[str] = []

        def create(name: str) -> Any:
            created.append(f"{folder}/{name}")
            return self._files().open_output_stream(created[-1])

        batches = (batch.select(names) for batch in rows)
        try:
            parts = write_parts(pa.RecordBatchReader.from_batches(schema, batches), table.metadata, create)
            if self._folder is not None:
                put_on_disk([*(self._folder / path for path in created), self._folder / folder, self._folder])
        except BaseException:
            self._delete(created)
            raise
        return [f"{folder}/{name}" for name, n_rows in parts.items() if n_rows]

    def _add_action(self, path: str, table: PublishedTable) -> "AddAction":
        from deltalake.transaction import AddAction

        with self._files().open_input_file(path) as file:
            n_bytes, statistics = file.size(), json.dumps(_statistics(pq.read_metadata(file)))
        return AddAction(path, n_bytes, {RUN_DATE: str(table.run_date)}, int(time.time() * 1000), True, statistics)

    def _commit(self, table: PublishedTable, added: list[Any], replaced: str, schema: Any) -> None:
        """Commit files in place of those of the run dates that are `replaced`: "=" or ">=" the table's.

        schema: of the table that the files were written for.
        """
        from deltalake import CommitProperties, DeltaTable
        from deltalake.exceptions import CommitFailedError

        # Every attempt reads the table again, so that it also replaces what another writer has just committed.
        properties = CommitProperties(custom_metadata=table.metadata, max_commit_retries=0)
        run_dates = [(RUN_DATE, replaced, str(table.run_date))]
        for _ in range(ATTEMPTS):
            existing = self._existing()
            if existing is None or existing.schema() != schema:
                raise StoreError(f"{self}: the table was removed or changed meanwhile. Run it again")
            # The answer to a commit may have been lost.
            if added and any(file.endswith(added[0].path) for file in existing.file_uris()):
                return
            try:
                existing.create_write_transaction(
                    added,
                    "overwrite",
                    existing.schema(),
                    partition_by=[RUN_DATE],
                    partition_filters=run_dates,
                    commit_properties=properties,
                )
            except CommitFailedError as error:
                if existing.version() == DeltaTable(self._uri).version():
                    # Not because of another writer.
                    raise
                reason = error
            else:
                return
        raise StoreError(f"{self}: other writers committed first, {ATTEMPTS} times. Run it again") from reason

    def _existing(self) -> "DeltaTable | None":
        """Open the table; None if it does not exist."""
        with needs_extra(self, "delta"):
            from deltalake import DeltaTable
            from deltalake.exceptions import TableNotFoundError
        try:
            return DeltaTable(self._uri)
        except TableNotFoundError:
            return None

    def _open_or_create(self, rows: pa.Schema) -> "DeltaTable":
        """Create the table if it does not exist. Raises ConfigError if it has other columns or partitions."""
        existing = self._existing()
        if existing is None:
            from deltalake import DeltaTable

            existing = DeltaTable.create(self._uri, rows, mode="ignore", partition_by=[RUN_DATE])
        self._check(existing)
        self._check_types(existing, rows)
        return existing

    def _check_types(self, existing: "DeltaTable", rows: pa.Schema) -> None:
        check_types(types_of(pa.schema(existing.schema().to_arrow())), types_of(rows), self)

    def _check(self, existing: "DeltaTable") -> None:
        check_columns([field.name for field in existing.schema().fields], self.layout, self)
        partitions = existing.metadata().partition_columns
        if partitions != [RUN_DATE]:
            raise ConfigError(
                f"{self}: is partitioned by {', '.join(partitions) or 'nothing'}; expected {RUN_DATE}. "
                "Pass another --out"
            )
        demands = _demands(existing.metadata().configuration, existing.protocol().writer_features or [])
        if demands:
            raise ConfigError(
                f"{self}: demands of its writers {', '.join(demands)}, which batchrec does not do. Pass another --out"
            )

    @property
    def _folder(self) -> Path | None:
        """The folder in this machine's files; None for an object store."""
        return None if "+" in self.url.scheme else Path(self.url.path).absolute()

    @property
    def _uri(self) -> str:
        return str(self._folder or self.url.address.removeprefix("delta+"))

    def _files(self) -> "DeltaStorageHandler":
        from deltalake.fs import DeltaStorageHandler

        return DeltaStorageHandler(self._uri)

    def _delete(self, paths: list[str]) -> None:
        """Delete files that are not part of the table; VACUUM deletes those that cannot be deleted now."""
        from deltalake.exceptions import DeltaError

        for path in paths:
            with suppress(DeltaError, OSError):
                self._files().delete_file(path)

    def _errors(self) -> AbstractContextManager[None]:
        with needs_extra(self, "delta"):
            from deltalake.exceptions import DeltaError
        return store_errors(self, "read or written", DeltaError, OSError, pa.ArrowException)


def _demands(configuration: Mapping[str, str], writer_features: Iterable[str]) -> list[str]:
    """Return what the properties and features of a table demand of a writer beyond adding and removing whole files."""
    properties = [
        f"{name}={value}"
        for name, value in configuration.items()
        if name.startswith("delta.constraints.")
        or (name == "delta.appendOnly" and value.lower() == "true")
        or (name == "delta.columnMapping.mode" and value.lower() != "none")
    ]
    return sorted([*properties, *(feature for feature in writer_features if feature not in _HARMLESS_FEATURES)])


def _not_undone(history: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the commits that no RESTORE has undone, as long as they are known; history: all of them, newest first."""
    last: int | None = None
    for commit in history:
        if last is not None and commit["version"] > last:
            continue
        yield commit
        if commit.get("operation") == "RESTORE":
            version = commit.get("operationParameters", {}).get("version")
            if version is None:
                # By a time: what it has undone is not known.
                return
            last = int(version)


def _statistics(metadata: pq.FileMetaData) -> dict[str, Any]:
    """Return the statistics of a file, by which readers skip it: of its columns that are not nested."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    statistics: dict[str, Any] = {"numRecords": metadata.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for index in range(metadata.num_columns):
        columns = [group.column(index) for group in groups]
        name, of_groups = columns[0].path_in_schema, [column.statistics for column in columns]
        if "." in name or any(each is None or not each.has_null_count for each in of_groups):
            continue
        statistics["nullCount"][name] = sum(each.null_count for each in of_groups)
        if all(each.has_min_max for each in of_groups):
            bounds = min(each.min for each in of_groups), max(each.max for each in of_groups)
            if not any(isinstance(bound, float) and not math.isfinite(bound) for bound in bounds):
                statistics["minValues"][name], statistics["maxValues"][name] = bounds
    return statistics
