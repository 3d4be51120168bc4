"""The result of inspect."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Rows that are shown.
N_ROWS = 5


@dataclass(frozen=True)
class Inspection:
    """A file or folder that is whole.

    kind: what it is, in words. checks: what was verified. figures: by name. columns: name -> type. head: the first
    rows, each by the names of the columns.
    """

    path: str
    kind: str
    checks: Sequence[str]
    figures: dict[str, Any]
    columns: dict[str, str] = field(default_factory=dict)
    head: Sequence[dict[str, Any]] = ()


def n_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
