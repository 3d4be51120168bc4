"""Parquet files: their columns and types."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.layouts import Format, Layout
from batchrec.tables.queries import literal, select


class ParquetFormat(Format):
    """Parquet, recognised by its bytes or its suffix."""

    name = "parquet"
    suffixes = (".parquet",)

    def recognises(self, file: Path, start: bytes) -> bool:
        """Return whether a file begins as Parquet does, or is named like it."""
        return start.startswith(b"PAR1") or file.suffix.lower() == ".parquet"

    def layout(self, file: Path, wanted: dict[str, str], options: CsvOptions) -> Layout:
        """Return the columns and types of the schema."""
        try:
            with file.open("rb") as opened:
                table = pq.ParquetFile(opened)
                schema, n_rows = table.schema_arrow, table.metadata.num_rows
                names = tuple(schema.names)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not a Parquet file: {error}") from error
        return Layout(names, types=tuple(map(str, schema.types)), has_rows=n_rows > 0, format_name=self.name)

    def read(self, con: duckdb.DuckDBPyConnection, files: Sequence[Path], layout: Layout) -> duckdb.DuckDBPyRelation:
        """Return the rows with the types of the files."""
        return select(con, "sources/read_parquet", paths=list(map(literal, files)))

    def columns_without_values(self, con: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> dict[Path, set[str]]:
        """Return the columns whose values are all null, by the statistics of each file."""
        columns: dict[Path, set[str]] = {}
        # Not with pyarrow, which crashes the process if the statistics of a column are damaged.
        for file, column in select(con, "sources/columns_without_values", paths=list(map(literal, files))).fetchall():
            columns.setdefault(Path(file), set()).add(column)
        return columns
