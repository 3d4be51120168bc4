"""The interface of tables in stores: what a kind of store has to provide."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from batchrec.system.urls import Url


@dataclass(frozen=True)
class Since:
    """A bound of the rows to read: those whose time in `column` is before `start`, a time with a zone, may be skipped.

    Rows without a time are read, because they count as unusable.
    """

    column: str
    start: datetime


class TableSource(ABC):
    """An open table of a store. To add a kind of store, derive a class and list it in stores/__init__.py."""

    @classmethod
    @abstractmethod
    def open(cls, url: Url) -> AbstractContextManager["TableSource"]:
        """Open the table that a URL names until the block ends.

        Raises ConfigError for a URL that is incomplete, a query that does not run or a package that is not installed;
        StoreError if the store cannot be reached or has no such table or version.
        """

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Return the columns of the table. Raises ConfigError and StoreError as `open` does."""

    @abstractmethod
    def read(self, columns: Sequence[str], since: Since | None = None) -> pa.RecordBatchReader:
        """Return the current rows as a stream, with these columns only, in this order.

        since: rows that are skipped if the store can filter by the type of the column.
        The stream raises OSError, pa.ArrowException or StoreError if the store fails.
        """
