"""The table that a job has written, read back by its report."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import InputError, one_line

if TYPE_CHECKING:
    import pandas as pd


class ReportTable:
    """A report whose `out` names the table that the job has written."""

    out: str

    def table(self) -> pa.Table:
        """Read the table. Raises InputError if `out` is not a Parquet file of this machine, or is gone."""
        try:
            # Opened here, because pyarrow would take a folder or a URL too.
            with Path(self.out).open("rb") as file:
                return pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self.out}: not a Parquet file of this machine: {one_line(error)}") from error

    def to_pandas(self) -> "pd.DataFrame":
        """Read the table as a pandas data frame; pandas is not installed with batchrec."""
        frame: pd.DataFrame = self.table().to_pandas()
        return frame
