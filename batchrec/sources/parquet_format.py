"""Parquet files: their columns and types."""

from collections.abc import Collection, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.file_format import Format, Layout
from batchrec.sources.input_files import InputFile
from batchrec.tables.queries import literal, select

# A request more takes about as long as this many bytes.
_WORTH_SKIPPING = 1 << 20


class ParquetFormat(Format):
    """Parquet, recognised by its bytes or its suffix."""

    name = "parquet"
    suffixes = (".parquet",)

    def recognises(self, file: InputFile, start: bytes) -> bool:
        """Return whether a file begins as Parquet does, or is named like it."""
        return start.startswith(b"PAR1") or str(file).lower().endswith(".parquet")

    def layout(self, file: InputFile, wanted: dict[str, str], options: CsvOptions) -> Layout:
        """Return the columns and types of the schema."""
        try:
            with file.open() as opened:
                table = pq.ParquetFile(opened)
                schema, n_rows = table.schema_arrow, table.metadata.num_rows
                names = tuple(schema.names)
        except pa.ArrowNotImplementedError as error:
            raise InputError(
                f"{file}: has a type that batchrec does not read: {error}. Cast it to int64 or text"
            ) from error
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not a Parquet file: {error}") from error
        return Layout(names, types=tuple(map(str, schema.types)), has_rows=n_rows > 0, format_name=self.name)

    def read(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile], layout: Layout
    ) -> duckdb.DuckDBPyRelation:
        """Return the rows with the types of the files."""
        return select(con, "sources/read_parquet", paths=[literal(file.path) for file in files])

    def columns_without_values(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile]
    ) -> dict[InputFile, set[str]]:
        """Return the columns whose values are all null, by the statistics of each file."""
        columns: dict[InputFile, set[str]] = {}
        # Not with pyarrow, which crashes the process if the statistics of a column are damaged.
        for file, column in select(
            con, "sources/columns_without_values", paths=[literal(file.path) for file in files]
        ).fetchall():
            columns.setdefault(InputFile(Path(file)), set()).add(column)
        return columns


def unwanted_ranges(file: Path, columns: Collection[str]) -> list[range]:
    """Return the ranges of bytes of a Parquet file that hold only other columns, if worth skipping, in order.

    file: only its footer is read; empty is returned if it is damaged. columns: names, in lower case.
    """
    try:
        # Not with pyarrow, see above; and an error inside DuckDB would make a connection that is in use unusable.
        with duckdb.connect() as con:
            chunks = select(con, "sources/column_chunks", path=literal(file)).fetchall()
    except duckdb.Error:
        return []
    ranges: list[range] = []
    end_of_wanted = 0
    for path, start, end in chunks:
        # The path of a nested column continues with a dot, or a comma and a blank.
        is_wanted = any(path.lower() == name or path.lower().startswith((f"{name}.", f"{name},")) for name in columns)
        if is_wanted:
            end_of_wanted = max(end_of_wanted, end)
            if ranges and ranges[-1].stop > start:
                ranges[-1] = range(ranges[-1].start, start)
        elif ranges and ranges[-1].stop == start >= end_of_wanted:
            ranges[-1] = range(ranges[-1].start, end)
        elif start >= end_of_wanted:
            ranges.append(range(start, end))
    return [unwanted for unwanted in ranges if len(unwanted) >= _WORTH_SKIPPING]
