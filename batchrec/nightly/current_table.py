"""The current table: what readers read, at score's `out`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchrec.system.atomic import check_writable_file, replacing
from batchrec.system.disk import file_sha256, put_on_disk


@dataclass(frozen=True)
class CurrentTable:
    """The recommendations that every reader reads, in a local file.

    Nothing else in this folder writes, reads or syncs the file. A table kept elsewhere (an object store, a database)
    needs these four methods, and a text that names it.
    """

    file: Path

    def __str__(self) -> str:
        return str(self.file)

    def check_writable(self) -> None:
        """Raise ConfigError if a night could not be published here, before any work is done."""
        check_writable_file(self.file)

    def sync(self) -> None:
        """Wait until a power cut cannot undo a switch that a killed run has made."""
        folder = Path(os.path.realpath(self.file)).parent
        if folder.is_dir():
            put_on_disk([folder])

    def sha256(self) -> str | None:
        """Return the SHA-256 of the table's bytes; None if there is no table."""
        return file_sha256(self.file) if self.file.is_file() else None

    @contextmanager
    def switching_to(self, table: Path) -> Iterator[None]:
        """Write a table next to the current one, then switch to it by one rename if the block ends without an error."""
        with replacing(self.file, contents=table) as temporary:
            put_on_disk([temporary])
            yield
