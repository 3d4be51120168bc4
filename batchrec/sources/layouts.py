"""Detect the format of a file from its bytes, and its layout: columns, delimiter, quotes and types."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.config import CsvOptions
from batchrec.errors import InputError

_DELIMITERS = (",", ";", "\t", "|", "::", "\x01")

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
_COMPRESSIONS = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}

_BLOCK = 1 << 20
# Errors of reading a damaged compressed file, next to OSError.
_DAMAGE_ERRORS = (EOFError, zlib.error, pa.ArrowException)

# Python's reader stops at fields of 128 KiB; a review can be longer.
csv.field_size_limit(2**31 - 1)

Compression = Literal["none", "gzip", "zstd"]


@dataclass(frozen=True)
class Layout:
    """The layout of a file: its columns in order, and its delimiter and quote (CSV) or its types (Parquet).

    partitions: columns that are written in the path, as in dt=2024-01-01. header_lines: number of lines of the header
    record. has_rows: False only for a Parquet file without rows.
    """

    columns: tuple[str, ...]
    partitions: tuple[str, ...] = ()
    delimiter: str = ""
    quote: str = ""
    new_line: str = ""
    header_lines: int = 0
    compression: Compression = "none"
    types: tuple[str, ...] = ()
    has_rows: bool = True

    @property
    def is_csv(self) -> bool:
        """Whether the file is text."""
        return bool(self.delimiter)

    def without_values(self, columns: Collection[str]) -> "Layout":
        """Return the layout with the type "null" for columns that have no value."""
        types = ("null" if name in columns else type_ for name, type_ in zip(self.columns, self.types, strict=False))
        return replace(self, types=tuple(types))


def layout_of(file: Path, wanted: dict[str, str], options: CsvOptions = CsvOptions()) -> Layout:
    """Return the layout of a file.

    wanted: column name -> the option that names it.
    Raises InputError if the file is empty or not a table, or does not have each wanted column exactly once.
    """
    layout = (
        _parquet_layout(file)
        if _first_bytes(file).startswith(b"PAR1") or _is_parquet(file)
        else _csv_layout(file, wanted, options)
    )
    in_path = {key for key, _ in partitions_of(file)}
    layout = replace(layout, partitions=tuple(sorted(in_path.intersection(wanted) - set(layout.columns))))
    missing = [name for name in wanted if name not in (*layout.columns, *layout.partitions)]
    for column, option in wanted.items():
        times = layout.columns.count(column)
        if times > 1:
            raise InputError(f"{file}: {times} columns {column!r}; found {show_names(layout.columns)}. Pass {option}")
    if missing:
        hint = f"Pass {wanted[missing[0]]}"
        if len(missing) == len(wanted) and layout.is_csv and "--timestamp-column" in wanted.values():
            hint += (
                ". If the file has no header pass --header no --columns, for another delimiter --delimiter, and for "
                "any other format --query with a SELECT that reads the file"
            )
        raise InputError(f"{file}: no column {missing[0]!r}; found {show_names(layout.columns)}. {hint}")
    return layout


def column_names(file: Path) -> tuple[str, ...]:
    """Return the column names of a file. Raises InputError if it is empty or cannot be read."""
    return layout_of(file, {}).columns


def show_names(names: Sequence[str]) -> str:
    """Return up to 30 names for an error message, in quotes if they have blanks or unprintable characters."""
    shown = [name if name and name == name.strip() and name.isprintable() else repr(name) for name in names[:30]]
    text = ", ".join(name if len(name) <= 60 else f"{name[:60]}..." for name in shown)
    return text + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def is_empty(file: Path) -> bool:
    """Return whether a file has no bytes. Raises InputError if it cannot be read."""
    try:
        return file.stat().st_size == 0
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def open_bytes(file: Path) -> BinaryIO:
    """Open a file; if it is compressed, its decompressed contents are read."""
    compression = compression_of(file)
    if compression == "gzip":
        return cast(BinaryIO, gzip.open(file))
    raw = file.open("rb")
    if compression == "zstd":
        return cast(
            BinaryIO, io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(pa.PythonFile(raw), "zstd")))
        )
    return raw


def check_whole(file: Path) -> None:
    """Read a compressed file to its end, because DuckDB does not verify gzip's checksum and flipped bits change rows.

    Raises InputError if the file is damaged or truncated.
    """
    try:
        with open_bytes(file) as opened:
            while opened.read(_BLOCK):
                pass
    except (*_DAMAGE_ERRORS, OSError) as error:
        raise InputError(
            f"{file}: is damaged or cut off: {error}. Download it again, or decompress the part that is intact"
        ) from error


def open_text(file: Path, encoding: str = "utf-8-sig") -> io.TextIOWrapper:
    """Open a text file, compressed or not. Bytes that are not UTF-8 are reported later, by DuckDB's scan."""
    return io.TextIOWrapper(open_bytes(file), encoding=encoding, errors="replace", newline="")


def compression_of(file: Path) -> Compression:
    """Return the compression of a file, by its first bytes."""
    first_bytes = _first_bytes(file)
    if first_bytes.startswith(_COMPRESSIONS["gzip"]):
        return "gzip"
    return "zstd" if first_bytes.startswith(_COMPRESSIONS["zstd"]) else "none"


def csv_records(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Split the lines of a CSV file into records. Yields the line on which each starts, from 1, and its fields."""
    if len(layout.delimiter) > 1:
        # Python's reader takes a delimiter of one character only.
        lines = (line.replace(layout.delimiter, "\x1f") for line in lines)
    delimiter = layout.delimiter if len(layout.delimiter) == 1 else "\x1f"
    if layout.quote:
        reader = csv.reader(lines, delimiter=delimiter, quotechar=layout.quote)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    line = 1
    for record in reader:
        yield line, record
        line = reader.line_num + 1


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _first_bytes(file: Path) -> bytes:
    """Return enough bytes to recognise the format of a file."""
    try:
        with file.open("rb") as opened:
            return opened.read(32)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def partitions_of(file: Path) -> list[tuple[str, str]]:
    """Return the columns that are written in the path of a file, and their values."""
    return [(key, unquote(value)) for key, sep, value in (part.partition("=") for part in file.parts[:-1]) if sep]


def _parquet_layout(file: Path) -> Layout:
    try:
        with file.open("rb") as opened:
            table = pq.ParquetFile(opened)
            schema, n_rows = table.schema_arrow, table.metadata.num_rows
            names = tuple(schema.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a Parquet file: {error}") from error
    return Layout(names, types=tuple(map(str, schema.types)), has_rows=n_rows > 0)


def _csv_layout(file: Path, wanted: dict[str, str], options: CsvOptions) -> Layout:
    first_bytes = _first_bytes(file)
    for kind, (offset, mark) in _OTHER_FORMATS.items():
        if first_bytes[offset:].startswith(mark):
            raise InputError(f"{file}: is {kind}, not a table in CSV or Parquet. Convert it, or read it with --query")
    try:
        with open_text(file) as text:
            # The header is one record. Line ends within quotes can spread it over several lines.
            start = list(islice(text, 100))
    except (*_DAMAGE_ERRORS, OSError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    if not "".join(start).strip():
        raise InputError(f"{file}: the file is empty; expected a header{' with ' if wanted else ''}{', '.join(wanted)}")
    if "\0" in start[0]:
        raise InputError(f"{file}: is not text: it holds zero bytes. Expected a table in CSV or Parquet")
    delimiters = _DELIMITERS if options.delimiter is None else (options.delimiter,)
    headers = [_header(start, delimiter, options) for delimiter in delimiters]
    best = max(headers, key=lambda layout: (len(set(wanted) & set(layout.columns)), len(layout.columns)))
    if options.names is not None and len(best.columns) != len(options.names):
        raise InputError(
            f"{file}: --columns names {len(options.names)} columns; the first line has {len(best.columns) or 'fewer'}, "
            f"split at {best.delimiter!r}. Pass --delimiter, or one name per column"
        )
    return replace(best, compression=compression_of(file))


def _header(start: list[str], delimiter: str, options: CsvOptions) -> Layout:
    quote = _quote_of(start, delimiter) if options.quote is None else options.quote
    layout = Layout((), delimiter=delimiter, quote=quote)
    _, columns = next(csv_records(start, layout), (1, []))
    if options.names is not None:
        columns = [*options.names, *columns[len(options.names) :]] if len(columns) >= len(options.names) else []
    following = next(islice(csv_records(start, layout), 1, None), (len(start) + 1, []))[0]
    # DuckDB would take the first line end for that of all records, even if it is within quotes.
    last_line = start[following - 2]
    ends = {"\r\n": r"\r\n", "\r": r"\r"}
    return replace(
        layout,
        columns=tuple(columns),
        new_line=ends.get(last_line[len(last_line.rstrip("\r\n")) :], r"\n"),
        header_lines=following - 1 if options.has_header else 0,
    )


def _quote_of(start: list[str], delimiter: str) -> str:
    """Return the quote character. In tab-separated files a quote is an ordinary character unless a field is quoted."""
    if delimiter not in ("\t", "\x01"):
        return '"'
    mark = re.escape(delimiter)
    quoted = re.compile(rf'(?:^|{mark})"(?:[^{mark}"]|"")*"(?:{mark}|[\r\n]*$)')
    return '"' if any(quoted.search(line) for line in start) else ""
