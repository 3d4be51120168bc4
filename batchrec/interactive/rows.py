"""Rows that a notebook shows: an Arrow table with its views."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tabulate import tabulate

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
        return self._shown(tablefmt="simple")

    def _repr_html_(self) -> str:
        return self._shown(tablefmt="html")

    def _shown(self, **options: Any) -> str:
        # Ids of digits stay as they are written.
        texts = [place for place, field in enumerate(self.table.schema) if not pa.types.is_floating(field.type)]
        shown = self.table[:_SHOWN].to_pydict()
        rows = tabulate(shown, headers="keys", disable_numparse=texts, floatfmt=".4f", **options)
        return f"{rows}\n{len(self):,} rows" if len(self) > _SHOWN else str(rows)
