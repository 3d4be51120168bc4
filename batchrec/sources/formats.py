"""The file formats that batchrec reads. A new format is added to FORMATS."""

import codecs
import re
from dataclasses import replace

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.compressed import first_bytes, first_bytes_within
from batchrec.sources.csv_format import CsvFormat
from batchrec.sources.file_format import Format, Layout, partitions_of, show_names
from batchrec.sources.input_files import InputFile
from batchrec.sources.json_lines_format import JsonLinesFormat
from batchrec.sources.parquet_format import ParquetFormat
from batchrec.sources.usual_columns import found_columns

# The first one that recognises a file reads it. CSV comes last, because it recognises every file.
FORMATS: tuple[Format, ...] = (ParquetFormat(), JsonLinesFormat(), CsvFormat())

SUFFIXES = tuple(suffix for format_ in reversed(FORMATS) for suffix in format_.suffixes)

# Formats that are not read: the byte offset and the bytes by which each is recognised, and what to do instead.
_CONVERT, _DECOMPRESS, _UNPACK = "Convert it to CSV or Parquet", "Decompress it", "Unpack it, and pass the files in it"
_TO_UTF_8 = "Convert it to UTF-8, as with iconv -f {0} -t utf-8, or pass --query with read_csv and encoding = '{0}'"
_EXPORT = "Export it as CSV or Parquet"
_OTHER_FORMATS = {
    "a zip archive or a spreadsheet": (0, b"PK\x03\x04", f"{_UNPACK}, or export the sheet as CSV"),
    "a tar archive": (257, b"ustar", _UNPACK),
    "a 7z archive": (0, b"7z\xbc\xaf\x27\x1c", _UNPACK),
    "a DuckDB database": (8, b"DUCK", "Pass --query with ATTACH, or a URL like duckdb://file.db?table=name"),
    "an SQLite database": (0, b"SQLite format 3\0", f"{_EXPORT}, or pass --query with ATTACH"),
    "a gzip file within another": (0, b"\x1f\x8b", _DECOMPRESS),
    "a bzip2 file": (0, b"BZh", _DECOMPRESS),
    "an xz file": (0, b"\xfd7zXZ\0", _DECOMPRESS),
    "an lz4 file": (0, b"\x04\x22\x4d\x18", _DECOMPRESS),
    "an ORC file": (0, b"ORC", "Convert it to Parquet"),
    "an Avro file": (0, b"Obj\x01", "Convert it to Parquet"),
    "an Arrow file": (0, b"ARROW1", "Convert it to Parquet"),
    "a stream of Arrow": (0, b"\xff\xff\xff\xff", "Convert it to Parquet"),
    "an HDF5 file": (0, b"\x89HDF", _CONVERT),
    "a file of R": (0, b"RDX3\n", f"{_EXPORT}, as with write.csv(row.names = FALSE)"),
    "a file of R (saveRDS)": (0, b"X\n\0\0\0", f"{_EXPORT}, as with write.csv(row.names = FALSE)"),
    "a pickle of Python": (0, b"\x80\x04\x95", f"{_EXPORT}, as with to_parquet"),
    "a newer pickle of Python": (0, b"\x80\x05\x95", f"{_EXPORT}, as with to_parquet"),
    "a binary export of Postgres": (0, b"PGCOPY\n", f"{_EXPORT}, as with COPY and FORMAT csv, HEADER"),
    "a dump of Postgres": (0, b"PGDMP", f"{_EXPORT}, as with COPY and FORMAT csv, HEADER"),
    "an old spreadsheet": (0, b"\xd0\xcf\x11\xe0", "Export it as CSV"),
    "a PDF": (0, b"%PDF", _CONVERT),
    "an encrypted Parquet file": (0, b"PARE", "Pass a decrypted copy"),
    "a compressed Parquet file": (0, b"PAR1", _DECOMPRESS),
    "text in UTF-32": (0, codecs.BOM_UTF32_LE, "Convert it to UTF-8, as with iconv -f utf-32 -t utf-8"),
    "text in UTF-16": (0, codecs.BOM_UTF16_LE, _TO_UTF_8.format("utf-16")),
    "text in UTF-16, big-endian": (0, codecs.BOM_UTF16_BE, "Convert it to UTF-8, as with iconv -f utf-16 -t utf-8"),
}
# A page of an error or a log-in instead of a file, or a table for people.
_MARKUP = re.compile(rb"\s*<(!doctype|\?xml|html|table|tr>)", re.IGNORECASE)

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
    _refuse_other_formats(file, start)
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
        raise InputError(f"{file}: no column {missing[0]!r}; {_about_missing(file, missing, wanted, layout, in_path)}")
    return layout


def _refuse_other_formats(file: InputFile, start: bytes) -> None:
    """Raise InputError if a file, or what is compressed in it, is of a format that is not read."""
    within = first_bytes_within(file, start)
    for kind, (offset, mark, advice) in _OTHER_FORMATS.items():
        is_same = within[offset:].startswith(mark)
        # A Parquet file is compressed inside, and a gzip file is read.
        if is_same and (mark != b"PAR1" or within is not start):
            raise InputError(f"{file}: is {kind}, which batchrec does not read. {advice}")
    if _MARKUP.match(within):
        raise InputError(f"{file}: is HTML or XML, not a table. Download it again, or export it as CSV")
    if str(file).lower().endswith(".sql"):
        raise InputError(
            f"{file}: has statements of SQL, not rows. Pass a SELECT as --query; load a dump into its database and "
            "export the table as CSV"
        )


def _about_missing(
    file: InputFile, missing: list[str], wanted: dict[str, str], layout: Layout, in_path: set[str]
) -> str:
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
    elif layout.format_name == JsonLinesFormat.name and missing[0] not in in_path:
        hint += f". For a field of an object, like object.field, pass --query with read_json('{file}')"
    elif option == "--timestamp-column" and "did you mean" not in found:
        hint += ". For a log without times pass --query with row_number() over () as timestamp: the order of the rows"
    return f"{found} {hint}"


def column_names(file: InputFile) -> tuple[str, ...]:
    """Return the column names of a file. Raises InputError if it is empty or cannot be read."""
    return layout_of(file, {}).columns
