"""CSV files and other delimited text: their delimiter, quotes, header and records."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import duckdb

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.compressed import DAMAGE_ERRORS, compression_of, open_text
from batchrec.sources.file_format import Format, Layout
from batchrec.sources.input_files import InputFile
from batchrec.tables.queries import literal, select

_DELIMITERS = (",", ";", "\t", "|", "\x1f", "::", "\x01")

# No name of a column, as 1st_seen is; pandas names columns 0, 1, 2 if nobody else does.
_LIKE_A_TIME = re.compile(r"\s*[-+]?\d[-+\d.,:/ TZ]{3,}")

# Python's reader stops at fields of 128 KiB; a review can be longer.
csv.field_size_limit(2**31 - 1)


class CsvFormat(Format):
    """Delimited text. It recognises every file, so it must be tried last."""

    name = "csv"
    suffixes = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst")
    values_are_text = True

    def recognises(self, file: InputFile, start: bytes) -> bool:
        """Return True: a file that is not text is refused by `layout`."""
        return True

    def layout(self, file: InputFile, wanted: dict[str, str], options: CsvOptions) -> Layout:
        """Return the layout with which most of the wanted columns exist."""
        try:
            with open_text(file) as text:
                # The header is one record. Line ends within quotes can spread it over several lines.
                lines = list(islice(text, 100))
        except (*DAMAGE_ERRORS, OSError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from error
        if not "".join(lines).strip():
            raise InputError(
                f"{file}: the file is empty; expected a header{' with ' if wanted else ''}{', '.join(wanted)}"
            )
        if "\0" in lines[0]:
            # The zero byte of a letter is its first one in UTF-16BE.
            encoding = "utf-16be" if lines[0].startswith("\0") else "utf-16le"
            raise InputError(
                f"{file}: is not text: it has zero bytes. Expected a table in a format that batchrec reads, such as "
                f"CSV. If it is text in UTF-16 convert it, as with iconv -f {encoding} -t utf-8"
            )
        delimiters = _DELIMITERS if options.delimiter is None else (options.delimiter,)
        headers = [_header(lines, delimiter, options) for delimiter in delimiters]
        best = max(headers, key=lambda layout: (len(set(wanted) & set(layout.columns)), len(layout.columns)))
        if wanted and options.names is None and not set(wanted) & set(best.columns):
            _refuse_late_header(file, lines, wanted, headers)
        if options.names is not None and options.has_header:
            _refuse_row_as_header(file, lines, wanted, best)
        if options.names is not None and len(best.columns) != len(options.names):
            raise InputError(
                f"{file}: --columns names {len(options.names)} columns; the first line has "
                f"{len(best.columns) or 'fewer'}, split at {best.delimiter!r}. Pass --delimiter, or one name per column"
            )
        return replace(best, compression=compression_of(file), format_name=self.name)

    def read(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile], layout: Layout
    ) -> duckdb.DuckDBPyRelation:
        """Return every value as text."""
        # Columns are named by their position, so that no name in a header means anything to DuckDB.
        types = {f"column_{place}": "VARCHAR" for place in range(len(layout.columns))}
        return select(
            con,
            "sources/read_csv",
            paths=[literal(file.path) for file in files],
            columns=types,
            delimiter=layout.delimiter,
            quote=layout.quote,
            new_line=layout.new_line,
            has_header=layout.header_lines > 0,
            compression=layout.compression,
        )


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


def _header(start: list[str], delimiter: str, options: CsvOptions) -> Layout:
    quote = _quote_of(start, delimiter) if options.quote is None else options.quote
    layout = Layout((), delimiter=delimiter, quote=quote)
    none: tuple[int, list[str]] = (len(start) + 1, [])
    (_, columns), (following, second), *_ = [*islice(csv_records(start, layout), 2), none, none]
    if options.names is not None:
        if options.has_header and len(columns) < len(options.names) == len(second):
            # R does not name the column of the rows' numbers.
            columns = second
        columns = [*options.names, *columns[len(options.names) :]] if len(columns) >= len(options.names) else []
    # DuckDB would take the first line end for that of all records, even if it is within quotes.
    last_line = start[following - 2]
    ends = {"\r\n": r"\r\n", "\r": r"\r"}
    return replace(
        layout,
        columns=tuple(columns),
        new_line=ends.get(last_line[len(last_line.rstrip("\r\n")) :], r"\n"),
        header_lines=following - 1 if options.has_header else 0,
    )


def _refuse_row_as_header(file: InputFile, start: list[str], wanted: dict[str, str], layout: Layout) -> None:
    """Raise InputError if the header that --columns replaces has a time in the column of times, as a row has."""
    (_, fields), *_ = csv_records(start, layout)
    for column, field in zip(layout.columns, fields, strict=False):
        if wanted.get(column) == "--timestamp-column" and _LIKE_A_TIME.fullmatch(field):
            raise InputError(
                f"{file}: the first line looks like a row: {field!r} is its {column}; expected a header, which "
                "--columns replaces. Pass --header no too if the file has none"
            )


def _refuse_late_header(file: InputFile, start: list[str], wanted: dict[str, str], layouts: list[Layout]) -> None:
    """Raise InputError if a line below the first names all wanted columns, as below a title or an empty line."""
    for layout in layouts:
        for line, fields in csv_records(start, layout):
            if set(wanted) <= set(fields):
                raise InputError(
                    f"{file}: the header is on line {line}; expected it on line 1. Remove the lines above it, or pass "
                    f"--query with a SELECT from read_csv('{file}', skip = {line - 1})"
                )


def _quote_of(start: list[str], delimiter: str) -> str:
    """Return the quote character. In tab-separated files a quote is an ordinary character unless a field is quoted."""
    if delimiter not in ("\t", "\x01", "\x1f"):
        return '"'
    mark = re.escape(delimiter)
    quoted = re.compile(rf'(?:^|{mark})"(?:[^{mark}"]|"")*"(?:{mark}|[\r\n]*$)')
    return '"' if any(quoted.search(line) for line in start) else ""
