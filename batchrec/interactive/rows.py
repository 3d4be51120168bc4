"""Rows that a notebook shows: an Arrow table with its views."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchrec.system.terminal import format_table

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20


@dataclass(frozen=True, repr=False)
class Rows:
    """Rows of lists, best first within a list. table: as Arrow; a notebook shows the first 20 rows."""

    table: pa.Table

    def to_pandas(self) -> "pd.DataFrame":
        """Return the rows as a pandas data frame; pandas is not installed with batchrec."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        heads, cells = self._shown()
        is_number = [pa.types.is_floating(field.type) for field in self.table.schema]
        return "\n".join([format_table(heads, cells, np.flatnonzero(is_number).tolist()), *self._rest()])

    def _repr_html_(self) -> str:
        heads, cells = self._shown()
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in cells]
        head = "".join(f"<th>{escape(name)}</th>" for name in heads)
        body = "".join(f"<tr>{row}</tr>" for row in [head, *rows])
        return "\n".join([f"<table>{body}</table>", *self._rest()])

    def _shown(self) -> tuple[list[str], list[list[str]]]:
        """Return the names of the columns, and the cells of the first rows."""
        rows = [[_cell(value) for value in row.values()] for row in self.table[:_SHOWN].to_pylist()]
        return self.table.column_names, rows

    def _rest(self) -> list[str]:
        return [f"{len(self):,} rows"] if len(self) > _SHOWN else []


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
