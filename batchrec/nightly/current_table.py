"""The current table: what readers read, at score's `out`. This is the seam for a sink other than a local file."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from batchrec.system.atomic import check_writable_file, replacing
from batchrec.system.disk import file_sha256, put_on_disk


class CurrentTable(Protocol):
    """A sink: the place whose recommendations every reader reads. Its text names the place in messages."""

    def check_writable(self) -> None:
        """Raise ConfigError if a night could not be published here, before any work is done."""

    def sync(self) -> None:
        """Wait until a power cut cannot undo a switch that a killed run has made."""

    def sha256(self) -> str | None:
        """Return the SHA-256 of the table's bytes; None if the table does not exist."""

    def switching_to(self, table: Path) -> AbstractContextManager[None]:
        """Write a table next to the current one, then switch to it in one step if the block ends without an error.

        A full disk is found before the block begins. When the block has ended, a power cut does not undo the switch.
        """


def current_table(out: Path) -> CurrentTable:
    """Return the sink for `out`."""
    return LocalTable(out)


@dataclass(frozen=True)
class LocalTable:
    """A table in a local file, switched by a rename."""

    file: Path

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
    def switching_to(self, table: Path) -> Iterator[None]:
        """Link or copy a table next to the file, then rename it to the file if the block ends without an error."""
        with replacing(self.file, contents=table) as temporary:
            put_on_disk([temporary])
            yield
