"""CSV records that cannot be used: the line on which each starts, and rows that a stray quote has merged into one."""

import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Protocol

import duckdb

from batchrec.errors import InputError
from batchrec.sources.compressed import open_bytes, open_text
from batchrec.sources.csv_format import csv_records
from batchrec.sources.file_format import Layout
from batchrec.sources.input_files import InputFile
from batchrec.sources.json_lines_format import json_records
from batchrec.tables.queries import select

# Maximum length of a value in an error message or a file of rejects.
_LONGEST_VALUE = 200
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Reject:
    """A row that cannot be used; `line` is None if it does not come from a CSV file."""

    file: str
    line: int | None
    reason: str
    value: str

    def __str__(self) -> str:
        line = f" line {self.line}:" if self.line else ""
        cut = f"{self.value[:_LONGEST_VALUE]}..." if len(self.value) > _LONGEST_VALUE else self.value
        return f"{self.file}:{line} {self.reason}: {cut!r}"


def located(file: InputFile, errors: Iterable[tuple[str, int, str, str]]) -> Iterator[Reject]:
    """Yield malformed records with their lines. errors: (file, start byte from 1, reason, text), in file order."""
    # DuckDB counts records instead of lines, but reports the start byte of each, including empty lines before it.
    with open_text(file, "latin-1") as text:
        line, end = 0, 0
        for _, start, reason, value in errors:
            record = value.lstrip("\r\n")
            while end < start + len(value) - len(record) and (next_line := text.readline()):
                line, end = line + 1, end + len(next_line)
            yield Reject(str(file), line, reason, record)


def line_numbers(
    file: InputFile, layout: Layout, records: Sequence[tuple[str | None, ...]], columns: Sequence[str]
) -> list[int | None]:
    """Return the line, from 1, on which each record of a text file starts; the header is skipped.

    records: the values of `columns`, None for an empty one. Equal records are matched in file order.
    """
    lines: list[int | None] = [None] * len(records)
    places = [layout.columns.index(column) if column in layout.columns else -1 for column in columns]
    waiting: defaultdict[tuple[str | None, ...], deque[int]] = defaultdict(deque)
    for number, record in enumerate(records):
        # Columns that are written in the path are not in the record.
        waiting[tuple(value if place >= 0 else None for value, place in zip(record, places, strict=True))].append(
            number
        )
    with open_text(file) as text:
        rows = csv_records(text, layout) if layout.is_csv else json_records(text, layout)
        for line, row in islice(rows, int(layout.header_lines > 0), None):
            if len(row) <= max(places):
                continue
            numbers = waiting.get(tuple(row[place] or None if place >= 0 else None for place in places))
            if numbers:
                lines[numbers.popleft()] = line
    return lines


class Readable(Protocol):
    """The part of a source that this module needs: its view, files and layout."""

    @property
    def view(self) -> str:
        """Name of the view."""

    @property
    def files(self) -> Sequence[InputFile]:
        """Files of the source; empty for a query."""

    @property
    def layout(self) -> Layout | None:
        """Layout of the files; None for a query."""


@dataclass(frozen=True)
class MergedRecord:
    """Rows of a CSV file that a stray quote has merged into one record.

    fields: the record as it was read, by column. rows: the lines of the record that look like rows.
    """

    file: str
    fields: dict[str, str]
    rows: list[Reject]


def merged_records(
    con: duckdb.DuckDBPyConnection, source: "Readable", wanted: Sequence[str], times: str | None = None
) -> list[MergedRecord]:
    """Return the records that a stray quote has made out of several rows.

    A quote that is an ordinary character, as in a title, merges all lines up to the next quote into one record. Text
    of several lines looks the same, so the lines decide: if they are split without regard to quotes and more than one
    is a complete row, they were merged. A complete row has a value in every wanted column and, if `times` is given, a
    digit at the start of that column.
    """
    layout = source.layout
    if layout is None or not layout.quote:
        return []
    suspects = [file for file in source.files if contains_quote(file, layout, layout.quote)]
    if not suspects:
        return []
    n_records = dict(select(con, "sources/records_per_file", source=source.view).fetchall())
    # Empty lines make a difference as well; then no record is returned.
    many_lines = [file for file in suspects if _n_lines(file, layout) != n_records.get(str(file), 0)]
    places = [layout.columns.index(column) for column in wanted if column in layout.columns]
    time_place = layout.columns.index(times) if times in layout.columns else None

    def is_row(fields: list[str]) -> bool:
        if len(fields) != len(layout.columns) or not all(fields[place].strip() for place in places):
            return False
        return time_place is None or re.match(r"\s*[-+]?\d", fields[time_place]) is not None

    return [record for file in many_lines for record in _merged_records(file, layout, is_row)]


def check_no_record_lost(con: duckdb.DuckDBPyConnection, source: "Readable", rejects: Sequence[Reject]) -> None:
    """Check with Python's reader that each record of a file was either kept or rejected.

    If a byte follows a closing quote, DuckDB may lose records nearby and report the wrong ones as malformed.
    rejects: the records of all files that did not parse.
    Raises InputError if a file has more records than were kept and rejected.
    """
    layout = source.layout
    n_rejects = Counter(reject.file for reject in rejects)
    damaged = [file for file in source.files if str(file) in n_rejects]
    if layout is None or not layout.quote or not damaged:
        return
    n_kept = dict(select(con, "sources/records_per_file", source=source.view).fetchall())
    for file in damaged:
        with open_text(file) as text:
            records = csv_records(text, layout)
            n_records = sum(1 for line, fields in records if fields and line > layout.header_lines)
        n_lost = n_records - n_kept.get(str(file), 0) - n_rejects[str(file)]
        if n_lost > 0:
            first = next(reject for reject in rejects if reject.file == str(file))
            raise InputError(
                f"{file}: near line {first.line} a quote is misplaced, and {n_lost} more of the file's {n_records} "
                "rows cannot be separated. Fix the lines, or pass --quote none if quotes are ordinary characters"
            )


def _merged_records(file: InputFile, layout: Layout, is_row: Callable[[list[str]], bool]) -> Iterator[MergedRecord]:
    with open_text(file) as text:
        kept: deque[str] = deque()
        records = csv_records(_keep_lines(text, kept), layout)
        for line, fields in records:
            lines = list(kept)
            kept.clear()
            # A record with fewer fields has already been rejected as malformed.
            if len(lines) < 2 or line <= layout.header_lines or len(fields) != len(layout.columns):
                continue
            unquoted = csv_records(lines, replace(layout, quote=""))
            rows = [number for number, row in unquoted if is_row(row)]
            if len(rows) > 1:
                reason = "a row within quotes that another row opens"
                rejects = [Reject(str(file), line + row - 1, reason, lines[row - 1].rstrip("\r\n")) for row in rows]
                yield MergedRecord(str(file), dict(zip(layout.columns, fields, strict=False)), rejects)


def _keep_lines(lines: Iterable[str], kept: deque[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def has_quoted_fields(layout: Layout, files: Sequence[InputFile]) -> bool:
    """Return whether any of the text files may have quoted fields."""
    return bool(layout.quote) and any(contains_quote(file, layout, layout.quote) for file in files)


def contains_quote(file: InputFile, layout: Layout, quote: str) -> bool:
    """Return whether a text file has a quote anywhere below its header."""
    status = file.path.stat()
    # Lines of bytes end only in \n.
    n_header_lines = 0 if layout.new_line == r"\r" else layout.header_lines
    return _contains_quote(file, n_header_lines, quote.encode(), status.st_size, status.st_mtime_ns)


@lru_cache
def _contains_quote(file: InputFile, n_header_lines: int, quote: bytes, _size: int, _changed: int) -> bool:
    # Cached, because a job asks several times and a compressed file would be read to its end each time.
    with open_bytes(file) as opened:
        for _ in range(n_header_lines):
            opened.readline()
        return any(quote in block for block in iter(lambda: opened.read(_BLOCK), b""))


def _n_lines(file: InputFile, layout: Layout) -> int:
    """Return the number of lines below the header."""
    end = b"\r" if layout.new_line == r"\r" else b"\n"
    n_ends, last = 0, end
    with open_bytes(file) as opened:
        for block in iter(lambda: opened.read(_BLOCK), b""):
            n_ends, last = n_ends + block.count(end), block[-1:]
    return n_ends + (last != end) - layout.header_lines
