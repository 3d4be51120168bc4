"""CSV records that cannot be used: the line on which each starts, and rows that a stray quote has merged into one."""

import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import duckdb

from batchrec.errors import InputError
from batchrec.sources.compressed import open_bytes, open_text
from batchrec.sources.csv_format import csv_records
from batchrec.sources.file_format import Layout
from batchrec.sources.input_files import InputFile
from batchrec.sources.json_lines_format import json_records
from batchrec.sources.source import Source
from batchrec.tables.queries import select

# Maximum length of a value in an error message or a file of rejects.
_LONGEST_VALUE = 200
_BLOCK = 1 << 20
NOT_UTF_8 = "malformed (invalid encoding)"
# As Spark and MySQL write a quote within quotes; others double it. PHP does both.
ESCAPED_QUOTE = '\\"'
ADVICE_ON_ESCAPED_QUOTES = (
    "For quotes that a backslash escapes pass --query with read_csv and escape = '\\'. In a file that PHP writes pass "
    "escape: '' to fputcsv. "
)
# A longer field is hardly text, and would fill the memory.
_MOST_LINES = 100_000


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


@dataclass(frozen=True)
class MergedRecord:
    """Rows of a CSV file that a stray quote has merged into one record.

    fields: the record as it was read, by column; None if it is malformed, and so was not read. rows: the lines of the
    record that look like rows.
    """

    file: str
    fields: dict[str, str] | None
    rows: list[Reject]


def merged_records(
    con: duckdb.DuckDBPyConnection, source: Source, wanted: Sequence[str], times: tuple[str, str] | None = None
) -> list[MergedRecord]:
    """Return the records that a stray quote has made out of several rows.

    A quote that is an ordinary character, as in a title, merges all lines up to the next quote into one record. Text
    of several lines looks the same, so the lines decide: if they are split without regard to quotes and more than one
    is a complete row, they were merged. If the quote is never closed one is enough, other than the first. A complete
    row has a value in every wanted column and, if `times` is given, a time in that column: times has the column and a
    regular expression that the start of each time matches.
    Raises InputError for a record of more than 100,000 lines: its quote is probably not closed.
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
    column, start = times or ("", "")
    time_place = layout.columns.index(column) if column in layout.columns else None
    # The lines are split without regard to quotes, so a time may begin with one.
    time_start = re.compile(rf"[\s{re.escape(layout.quote)}]*{start}")

    def is_row(fields: list[str]) -> bool:
        if len(fields) != len(layout.columns) or not all(fields[place].strip() for place in places):
            return False
        return time_place is None or time_start.match(fields[time_place]) is not None

    return [record for file in many_lines for record in _merged_records(file, layout, is_row)]


def check_no_record_lost(
    con: duckdb.DuckDBPyConnection, source: Source, malformed: Sequence[Reject], merged: Sequence[MergedRecord]
) -> None:
    """Check with Python's reader that each record of a damaged file was either kept or rejected, and none twice.

    If a byte follows a closing quote, DuckDB may lose records nearby and report the wrong ones as malformed. And it
    reads a large file in blocks: one that starts within quotes may be read as if it did not.
    malformed: the records of all files that did not parse. merged: those that a stray quote has merged.
    Raises InputError if a file has another number of records than were kept and rejected.
    """
    layout = source.layout
    # A scan that counts records may take one that is not UTF-8.
    n_rejects = Counter(reject.file for reject in malformed if reject.reason != NOT_UTF_8)
    n_not_utf_8 = Counter(reject.file for reject in malformed if reject.reason == NOT_UTF_8)
    bad = [*malformed, *(record.rows[0] for record in merged)]
    lines = {reject.file: reject.line for reject in reversed(bad)}
    damaged = [file for file in source.files if str(file) in lines]
    if layout is None or not layout.quote or not damaged:
        return
    n_kept = dict(select(con, "sources/records_per_file", source=source.view).fetchall())
    for file in damaged:
        with open_text(file) as text:
            records = csv_records(text, layout)
            n_records = sum(1 for line, fields in records if fields and line > layout.header_lines)
        n_missing = n_records - n_kept.get(str(file), 0) - n_rejects[str(file)]
        n_unclear = max(n_missing - n_not_utf_8[str(file)], -n_missing)
        if n_unclear > 0:
            is_escaped = any(ESCAPED_QUOTE in reject.value for reject in malformed if reject.file == str(file))
            raise InputError(
                f"{file}: near line {lines[str(file)]} a quote is misplaced, and {n_unclear} more of the file's "
                f"{n_records} rows cannot be separated. {ADVICE_ON_ESCAPED_QUOTES if is_escaped else ''}Fix the "
                "lines, or pass --quote none if quotes are ordinary characters"
            )


def rejects_of_lines(malformed: Sequence[Reject], merged: Sequence[MergedRecord]) -> list[Reject]:
    """Return the rows that did not parse: a malformed record that merged several rows counts as these."""
    rows = [row for record in merged for row in record.rows]
    places = {(row.file, row.line) for row in rows}
    return [reject for reject in malformed if (reject.file, reject.line) not in places] + rows


def _merged_records(file: InputFile, layout: Layout, is_row: Callable[[list[str]], bool]) -> Iterator[MergedRecord]:
    with open_text(file) as text:
        kept: deque[str] = deque()
        records = csv_records(_keep_lines(text, kept, file), layout)
        for line, fields in records:
            lines = list(kept)
            kept.clear()
            if len(lines) < 2 or line <= layout.header_lines:
                continue
            rows = [number for number, row in csv_records(lines, replace(layout, quote="")) if is_row(row)]
            is_open = bool(rows) and _is_open(lines, layout)
            if len(rows) > 1 or (is_open and rows != [1]):
                is_malformed = is_open or len(fields) != len(layout.columns)
                reason = "a row within quotes that another row opens"
                rejects = [Reject(str(file), line + row - 1, reason, lines[row - 1].rstrip("\r\n")) for row in rows]
                values = None if is_malformed else dict(zip(layout.columns, fields, strict=True))
                yield MergedRecord(str(file), values, rejects)


def _is_open(lines: Sequence[str], layout: Layout) -> bool:
    """Return whether the last quote of a record is not closed: then any further line belongs to it too."""
    return sum(1 for _ in csv_records([*lines, "\n"], layout)) == 1


def _keep_lines(lines: Iterable[str], kept: deque[str], file: InputFile) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        kept.append(line)
        if len(kept) > _MOST_LINES:
            raise InputError(
                f"{file}: line {number - _MOST_LINES}: a quote is not closed within {_MOST_LINES} lines. Fix the line, "
                "or pass --quote none if quotes are ordinary characters in this file"
            )
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
