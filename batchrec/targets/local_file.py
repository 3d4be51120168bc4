"""A local file as target: one table, switched by a rename."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchrec.system.atomic import check_writable_file, replacing
from batchrec.system.disk import file_sha256, put_on_disk
from batchrec.targets.target import PublishedTable


@dataclass(frozen=True)
class LocalFile:
    """A table in a local file."""

    file: Path
    is_dated = False

    def __str__(self) -> str:
        return str(self.file)

    def check_writable(self) -> None:
        """Raise ConfigError if the file cannot be created."""
        check_writable_file(self.file)

    def sync(self) -> None:
        """Sync the folder of the file, if it exists."""
        folder = Path(os.path.realpath(self.file)).parent
        if folder.is_dir():
            put_on_disk([folder])

    def sha256(self) -> str | None:
        """Return the SHA-256 of the file; None if the file does not exist."""
        return file_sha256(self.file) if self.file.is_file() else None

    @contextmanager
    def replacing(self, table: PublishedTable) -> Iterator[None]:
        """Link or copy a table next to the file, then rename it to the file if the block ends without an error."""
        with replacing(self.file, contents=table.recs) as temporary:
            put_on_disk([temporary])
            yield

    def rolling_back(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Do the same as `replacing`: the file holds one table."""
        return self.replacing(table)
