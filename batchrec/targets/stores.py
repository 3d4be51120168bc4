"""Shared by targets that are tables: what they are, checks of a table that exists, and its newest SHA-256."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchrec.config import TargetLayout
from batchrec.errors import ConfigError, RefusedError
from batchrec.system.urls import Url
from batchrec.targets.target import PublishedTable

# Publications that other writers may overtake before one gives up, and connections that may be lost.
ATTEMPTS = 5
# The advice after the message of a constraint or a trigger that refuses rows.
CHANGE_TABLE = "Change the table, or pass another --out"


@dataclass(frozen=True)
class TableTarget(ABC):
    """A target that is a table with the column run_date."""

    url: Url
    layout: TargetLayout = "long"
    is_dated = True

    def __str__(self) -> str:
        return str(self.url)

    def replacing(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Write the rows of a run date, then switch to them if the block ends without an error."""
        return self._publishing(table, "=")

    def rolling_back(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Do the same as `replacing`, and remove later run dates in the same step."""
        return self._publishing(table, ">=")

    @abstractmethod
    def _publishing(self, table: PublishedTable, replaced: str) -> AbstractContextManager[None]:
        """Publish in place of the run dates that are `replaced`: "=" or ">=" the table's."""


def check_types(existing: Mapping[str, str], expected: Mapping[str, str], where: object) -> None:
    """Raise RefusedError if a table has other columns or types than the rows to write, in any order.

    existing, expected: type by column, as in messages. where: the table, for the message.
    """
    if existing != expected:
        raise RefusedError(
            f"{where}: exists with columns {_text(existing)}; expected {_text(expected)}. Pass another --out"
        )


def check_runs(existing: Iterable[str], expected: Sequence[str], table: str, where: object) -> None:
    """Raise ConfigError if the table of runs exists, with columns `existing`, and batchrec has not made it.

    where: the target, for the message.
    """
    if list(existing) not in ([], list(expected)):
        raise ConfigError(
            f"{where}: the table {table} exists with columns {', '.join(existing)}; expected {', '.join(expected)}. "
            "Rename it, or pass another --out"
        )


def check_path(path: Path, misread: str, where: object) -> None:
    """Raise ConfigError if a path has one of the characters that the library of its tables takes for something else.

    misread: these characters. where: the target, for the message.
    """
    found = sorted(set(str(path)) & set(misread))
    if found:
        raise ConfigError(
            f"{where}: a table cannot be kept below a name with {found[0]}, as in {path}. Pass another --out"
        )


def newest_sha256(run_dates: Iterable[date | str | None], commits: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the SHA-256 that is recorded for the newest run date of a table; None if it is not known.

    run_dates: those with rows; None of rows without one, which others have written. commits: the metadata of the
    table's commits, newest first.
    """
    ours = [commit for commit in commits if "batchrec.run_date" in commit]
    # The newest commit may be of a table without rows.
    dates = [*map(str, filter(None, run_dates)), *(commit["batchrec.run_date"] for commit in ours[:1])]
    newest = max(dates, default=None)
    return next((str(commit["batchrec.sha256"]) for commit in ours if commit["batchrec.run_date"] == newest), None)


def types_of(schema: pa.Schema) -> dict[str, str]:
    """Return the type of each column as a text. Whether it may hold nulls or long texts makes no difference."""
    return {field.name: str(field.type).replace("large_", "").replace(" not null", "") for field in schema}


def _text(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {type_}" for name, type_ in sorted(types.items()))
