"""A table of Apache Iceberg as target: iceberg://catalog/db.table. One run date is one partition.

The catalog is one of pyiceberg's configuration: ~/.pyiceberg.yaml, or variables such as PYICEBERG_CATALOG__LAKE__URI.
A publication writes its Parquet files first. One snapshot then removes the old files of the run date and adds the new
ones: pyiceberg's own overwrite takes a stream of rows only for tables without partitions.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import ConfigError, RefusedError, StoreError
from batchrec.system.stores import needs_extra, store_errors
from batchrec.targets.parts import write_parts
from batchrec.targets.rows import RUN_DATE, check_columns, open_rows, schema_of
from batchrec.targets.stores import ATTEMPTS, TableTarget, check_types, newest_sha256, types_of
from batchrec.targets.target import PublishedTable

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table


@dataclass(frozen=True)
class IcebergTarget(TableTarget):
    """A table of Apache Iceberg, partitioned by run_date."""

    def __post_init__(self) -> None:
        self.url.check_parameters(set())
        catalog, _, name = self.url.path.partition("/")
        if not catalog or "/" in name or not all(name.split(".")) or "." not in name:
            raise ConfigError(f"{self}: expected iceberg://catalog/db.table")

    def check_writable(self) -> None:
        """Raise ConfigError or StoreError if the table has other columns, or catalog or files cannot be written.

        Creates the namespace of the table if it does not exist.
        """
        with self._errors():
            existing = self._existing()
            if existing is None:
                self._catalog().create_namespace_if_not_exists(self._namespace)
                return
            self._check(existing)
            probe = existing.location_provider().new_data_location("batchrec-probe.parquet")
            with existing.io.new_output(probe).create(overwrite=True) as file:
                pq.write_table(pa.table({RUN_DATE: []}), file)
            existing.io.delete(probe)

    def check_table(self, table: PublishedTable) -> None:
        """Raise ConfigError if the table exists, with other columns or types than the rows."""
        with self._errors():
            existing = self._existing()
            if existing is not None:
                self._check_types(existing, schema_of(table, self.layout, is_dated=True))

    def sync(self) -> None:
        """Do nothing: a catalog answers when its commit is safe."""

    def sha256(self) -> str | None:
        """Return the SHA-256 of the table of the newest run date, from the snapshots; None if it is not known."""
        with self._errors():
            existing = self._existing()
            current = None if existing is None else existing.current_snapshot()
            if existing is None or current is None:
                return None
            from pyiceberg.table.snapshots import ancestors_of

            partitions = existing.inspect.partitions()["partition"].to_pylist()
            run_dates = [partition.get(RUN_DATE) for partition in partitions]
            summaries = [snapshot.summary for snapshot in ancestors_of(current, existing.metadata)]
            return newest_sha256(run_dates, [each.additional_properties for each in summaries if each is not None])

    @contextmanager
    def _publishing(self, table: PublishedTable, replaced: str) -> Iterator[None]:
        with self._errors():
            from pyiceberg.io.pyarrow import parquet_file_to_data_file

            with open_rows(table, self.layout, is_dated=True) as rows:
                existing = self._open_or_create(rows.schema)
                paths = self._write(existing, rows, table)
            added = [parquet_file_to_data_file(existing.io, existing.metadata, path) for path in paths]
        try:
            yield
        except BaseException:
            _delete(existing, paths)
            raise
        with self._errors():
            self._commit(table, added, replaced, existing.schema())

    def _write(self, existing: "Table", rows: pa.RecordBatchReader, table: PublishedTable) -> list[str]:
        """Write the rows to new files; returns their paths."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        # With the ids of the table's columns, by which every reader finds them.
        schema = schema_to_pyarrow(existing.schema())
        places = existing.location_provider()
        created: dict[str, str] = {}

        def create(name: str) -> Any:
            created[name] = places.new_data_location(f"{RUN_DATE}={table.run_date}/{name}")
            return existing.io.new_output(created[name]).create()

        batches = (batch.select(schema.names).cast(schema) for batch in rows)
        try:
            parts = write_parts(pa.RecordBatchReader.from_batches(schema, batches), table.metadata, create)
        except BaseException:
            _delete(existing, created.values())
            raise
        return [created[name] for name, n_rows in parts.items() if n_rows]

    def _commit(self, table: PublishedTable, added: list["DataFile"], replaced: str, schema: "Schema") -> None:
        """Commit files in place of those of the run dates that are `replaced`: "=" or ">=" the table's.

        schema: of the table that the files were written for.
        """
        from pyiceberg.exceptions import CommitFailedException, ValidationException
        from pyiceberg.expressions.parser import parse

        run_dates = parse(f"{RUN_DATE} {replaced} '{table.run_date}'")
        # Every attempt reads the table again, so that it also replaces what another writer has just committed.
        for _ in range(ATTEMPTS):
            existing = self._existing()
            if existing is None or existing.schema() != schema:
                raise StoreError(f"{self}: the table was removed or changed meanwhile. Run it again")
            removed = [task.file for task in existing.scan(row_filter=run_dates).plan_files()]
            # The answer to a commit may have been lost.
            if added and added[0].file_path in {file.file_path for file in removed}:
                return
            if any(file.spec_id != existing.spec().spec_id for file in removed):
                raise RefusedError(
                    f"{self}: holds files of an earlier partitioning. Rewrite them, or pass another --out"
                )
            try:
                with (
                    existing.transaction() as transaction,
                    transaction.update_snapshot(snapshot_properties=table.metadata).overwrite() as snapshot,
                ):
                    # Files of these run dates that another writer adds meanwhile are a conflict.
                    snapshot.delete_by_predicate(run_dates)
                    for file in removed:
                        snapshot.delete_data_file(file)
                    for file in added:
                        snapshot.append_data_file(file)
            except (CommitFailedException, ValidationException) as error:
                reason = error
            else:
                return
        raise StoreError(f"{self}: other writers committed first, {ATTEMPTS} times. Run it again") from reason

    @property
    def _name(self) -> str:
        return self.url.path.partition("/")[2]

    @property
    def _namespace(self) -> str:
        return self._name.rpartition(".")[0]

    def _catalog(self) -> "Catalog":
        from pyiceberg.catalog import load_catalog

        return load_catalog(self.url.path.partition("/")[0])

    def _existing(self) -> "Table | None":
        """Open the table; None if it does not exist."""
        from pyiceberg.exceptions import NoSuchTableError

        try:
            return self._catalog().load_table(self._name)
        except NoSuchTableError:
            return None

    def _open_or_create(self, rows: pa.Schema) -> "Table":
        """Create the table if it does not exist. Raises ConfigError if it has other columns or partitions."""
        from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError

        existing = self._existing()
        if existing is None:
            catalog = self._catalog()
            catalog.create_namespace_if_not_exists(self._namespace)
            # Another writer may create it first.
            with (
                suppress(TableAlreadyExistsError, CommitFailedException),
                catalog.create_table_transaction(self._name, rows) as transaction,
                transaction.update_spec() as spec,
            ):
                spec.add_identity(RUN_DATE)
            existing = catalog.load_table(self._name)
        self._check(existing)
        self._check_types(existing, rows)
        return existing

    def _check_types(self, existing: "Table", rows: pa.Schema) -> None:
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        check_types(types_of(schema_to_pyarrow(existing.schema())), types_of(rows), self)

    def _check(self, existing: "Table") -> None:
        schema = existing.schema()
        check_columns([field.name for field in schema.fields], self.layout, self)
        partitions = [
            (schema.find_column_name(field.source_id), str(field.transform)) for field in existing.spec().fields
        ]
        if partitions != [(RUN_DATE, "identity")]:
            text = ", ".join(f"{transform}({column})" for column, transform in partitions)
            raise ConfigError(
                f"{self}: is partitioned by {text or 'nothing'}; expected identity({RUN_DATE}). Pass another --out"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        # A catalog is reached by any of several libraries, each with errors of its own.
        with needs_extra(self, "iceberg"), store_errors(self, "read or written", Exception):
            yield


def _delete(existing: "Table", paths: Iterable[str]) -> None:
    """Delete files that are not part of the table; remove_orphan_files deletes those that cannot be deleted now."""
    for path in paths:
        with suppress(Exception):
            existing.io.delete(path)
