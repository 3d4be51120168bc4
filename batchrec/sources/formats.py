"""The file formats that batchrec reads. A new format is added to FORMATS."""

import codecs
from dataclasses import replace

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.compressed import first_bytes
from batchrec.sources.csv_format import CsvFormat
from batchrec.sources.file_format import Format, Layout, partitions_of, show_names
from batchrec.sources.input_files import InputFile
from batchrec.sources.json_lines_format import JsonLinesFormat
from batchrec.sources.parquet_format import ParquetFormat
from batchrec.sources.usual_columns import found_columns

# The first one that recognises a file reads it. CSV comes last, because it recognises every file.
FORMATS: tuple[Format, ...] = (ParquetFormat(), JsonLinesFormat(), CsvFormat())

SUFFIXES = tuple(suffix for format_ in reversed(FORMATS) for suffix in format_.suffixes)

# Formats that are not read: the byte offset and the bytes by which each is recognised.
_OTHER_FORMATS = {
    "a zip archive or a spreadsheet": (0, b"PK\x03\x04"),
    "a DuckDB database": (8, b"DUCK"),
    "an SQLite database": (0, b"SQLite format 3\0"),
    "a bzip2 file": (0, b"BZh"),
    "an xz file": (0, b"\xfd7zXZ\0"),
    "an ORC file": (0, b"ORC"),
    "an Avro file": (0, b"Obj\x01"),
    "an Arrow file": (0, b"ARROW1"),
    "an old spreadsheet": (0, b"\xd0\xcf\x11\xe0"),
    "a PDF": (0, b"%PDF"),
    "text in UTF-16": (0, codecs.BOM_UTF16_LE),
    "text in UTF-16, big-endian": (0, codecs.BOM_UTF16_BE),
}

# A date that is written in three columns of a path.
_DATE_PARTS = {"year", "month", "day"}
_DATE_OF_PARTS = (
    "concat_ws('-', year, month, day) as timestamp, from read_parquet or read_csv with hive_partitioning = true"
)


def format_of(layout: Layout) -> Format:
    """Return the format that made a layout."""
    return next(format_ for format_ in FORMATS if format_.name == layout.format_name)


def layout_of(file: InputFile, wanted: dict[str, str], options: CsvOptions = CsvOptions()) -> Layout:
    """Return the layout of a file.

    wanted: column name -> the option that names it.
    Raises InputError if the file is empty or not a table, or does not have each wanted column exactly once.
    """
    start = first_bytes(file)
    for kind, (offset, mark) in _OTHER_FORMATS.items():
        if start[offset:].startswith(mark):
            advice = "Convert it to UTF-8" if kind.startswith("text") else "Convert it to CSV or Parquet"
            raise InputError(f"{file}: is {kind}, which batchrec does not read. {advice}, or pass --query")
    format_ = next(format_ for format_ in FORMATS if format_.recognises(file, start))
    layout = format_.layout(file, wanted, options)
    in_path = {key for key, _ in partitions_of(str(file))}
    layout = replace(layout, partitions=tuple(sorted(in_path.intersection(wanted) - set(layout.columns))))
    missing = [name for name in wanted if name not in (*layout.columns, *layout.partitions)]
    for column, option in wanted.items():
        times = layout.columns.count(column)
        if times > 1:
            raise InputError(f"{file}: {times} columns {column!r}; found {show_names(layout.columns)}. Pass {option}")
    if missing:
        raise InputError(f"{file}: no column {missing[0]!r}; {_about_missing(missing, wanted, layout, in_path)}")
    return layout


def _about_missing(missing: list[str], wanted: dict[str, str], layout: Layout, in_path: set[str]) -> str:
    """Return what was found in place of a missing column, and what to do."""
    option = wanted[missing[0]]
    # Three columns of a path can be the time together, but none of them alone.
    in_parts = {key.lower() for key in in_path} >= _DATE_PARTS
    offered = {key for key in in_path if not in_parts or key.lower() not in _DATE_PARTS}
    found = found_columns([*layout.columns, *sorted(offered.difference(layout.columns))], missing[0], option)
    if in_parts and option == "--timestamp-column":
        return f"{found} Pass --query with {_DATE_OF_PARTS}"
    hint = f"Pass {option}"
    if len(missing) == len(wanted) and layout.is_csv and "--timestamp-column" in wanted.values():
        hint += (
            ". If the file has no header pass --header no --columns, for another delimiter --delimiter, and for "
            "any other format --query with a SELECT that reads the file"
        )
    elif option == "--timestamp-column" and "did you mean" not in found:
        hint += ". For a log without times pass --query with row_number() over () as timestamp: the order of the rows"
    return f"{found} {hint}"


def column_names(file: InputFile) -> tuple[str, ...]:
    """Return the column names of a file. Raises InputError if it is empty or cannot be read."""
    return layout_of(file, {}).columns
