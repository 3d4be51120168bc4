"""A local file as target: one table, switched by a rename."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchrec.config import TargetLayout
from batchrec.system.atomic import TABLE, check_writable_file, replacing
from batchrec.system.disk import intact_sha256, put_on_disk
from batchrec.tables.sealed_parquet import open_parquet, sealed_writer
from batchrec.targets.parts import recorded_sha256
from batchrec.targets.rows import open_rows
from batchrec.targets.target import PublishedTable


@dataclass(frozen=True)
class LocalFile:
    """A table in a local file: the very bytes of the finished table, unless the layout is nested."""

    file: Path
    layout: TargetLayout = "long"
    is_dated = False

    def __str__(self) -> str:
        return str(self.file)

    def check_writable(self) -> None:
        """Raise ConfigError if the file cannot be created, or is not a Parquet table."""
        check_writable_file(self.file, kind=TABLE)

    def check_table(self, table: PublishedTable) -> None:
        """Do nothing: the file holds one table."""

    def sync(self) -> None:
        """Sync the folder of the file, if it exists."""
        folder = Path(os.path.realpath(self.file)).parent
        if folder.is_dir():
            put_on_disk([folder])

    def sha256(self) -> str | None:
        """Return the SHA-256 of the file, or of the table that it was made from; None if it is missing or damaged."""
        if not self.file.is_file():
            return None
        if self.layout != "nested":
            return intact_sha256(self.file)
        try:
            return recorded_sha256(open_parquet(self.file))
        except OSError:
            return None

    @contextmanager
    def replacing(self, table: PublishedTable) -> Iterator[None]:
        """Link, copy or write a table next to the file; rename it to the file if the block ends without an error."""
        with replacing(self.file, contents=None if self.layout == "nested" else table.recs) as temporary:
            if self.layout == "nested":
                _write_nested(table, temporary)
            put_on_disk([temporary])
            yield

    def rolling_back(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Do the same as `replacing`: the file holds one table."""
        return self.replacing(table)


def _write_nested(table: PublishedTable, file: Path) -> None:
    with open_rows(table, "nested", is_dated=False) as rows:
        schema = rows.schema.with_metadata(table.metadata)
        with sealed_writer(file, schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
