"""The interface of targets: what a place that publishes recommendations has to provide."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class PublishedTable:
    """A finished table to publish: of recommendations, or of similar items.

    recs: a local Parquet file, one row per item of a list. sha256: of its bytes. run_id, model_id: what made it.
    """

    recs: Path
    run_date: date
    sha256: str
    run_id: str
    model_id: str

    @property
    def metadata(self) -> dict[str, str]:
        """The record that a target keeps with the rows, under these names if it can."""
        return {
            "batchrec.run_date": str(self.run_date),
            "batchrec.sha256": self.sha256,
            "batchrec.run_id": self.run_id,
            "batchrec.model_id": self.model_id,
        }


class Target(Protocol):
    """A place whose recommendations every reader reads. Its text names the place in messages, without secrets.

    A dated target holds the rows of several run dates, in a column or folder run_date; readers read the newest date.
    Any other target holds one table. Methods raise StoreError if the place cannot be reached or used.
    """

    is_dated: bool

    def check_writable(self) -> None:
        """Raise ConfigError or StoreError if a night could not be published here, before any work is done."""

    def check_table(self, table: PublishedTable) -> None:
        """Raise ConfigError if readers could not read a table's rows next to those of earlier run dates.

        Called before it is decided to publish: a night that is decided, and never taken here, would block all others.
        """

    def sync(self) -> None:
        """Wait until a power cut cannot undo a switch that a killed run has made."""

    def sha256(self) -> str | None:
        """Return the SHA-256, as in PublishedTable, of the table that readers read now; None if it is not known."""

    def replacing(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Write a table next to what readers read, then switch to it in one step if the block ends without an error.

        A dated target replaces the rows of the table's run date only, any other target its whole table. A full disk is
        found before the block begins. When the block has ended, a power cut does not undo the switch.
        """

    def rolling_back(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Do the same as `replacing`, and remove the rows of later run dates in the same step."""
