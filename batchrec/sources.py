"""Files of events or of a catalogue: found, recognised, and opened as relations with every value bound."""

import csv
import glob
import gzip
import io
import zlib
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby, islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import InputError
from batchrec.queries import literal, select

_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Layout:
    """What a file's columns are called, in its order; `delimiter` is empty for Parquet."""

    columns: tuple[str, ...]
    delimiter: str


@dataclass(frozen=True)
class Source:
    """What is opened as the view `view`; `names` maps its columns to those of the view."""

    view: str
    names: dict[str, str]
    is_csv: bool = False


@dataclass(frozen=True)
class Reject:
    """A row that cannot be used; `line` is None where it does not come from a CSV file."""

    file: str
    line: int | None
    reason: str
    value: str

    def __str__(self) -> str:
        line = f" line {self.line}:" if self.line else ""
        return f"{self.file}:{line} {self.reason}: {self.value!r}"


def find_files(paths: Sequence[str], option: str) -> list[Path]:
    """List the files that paths, folders and globs name, each once, in order.

    Raises InputError where a path names no file.
    """
    found = [file for path in paths for file in _files_of(path, option)]
    return sorted({file.resolve(): file for file in found}.values())


def _files_of(path: str, option: str) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    if Path(path).is_dir():
        files = [f for f in Path(path).rglob("[!._]*") if f.is_file() and f.name.lower().endswith(_SUFFIXES)]
        expected = f"a folder with {', '.join(_SUFFIXES)} files"
    else:
        files = [Path(f) for f in glob.glob(path, recursive=True) if Path(f).is_file()]
        expected = f"a file, a folder or a glob. Pass {option}"
    if not files:
        raise InputError(f"{path}: no file found; expected {expected}")
    return files


def open_sources(con: duckdb.DuckDBPyConnection, files: Sequence[Path], wanted: dict[str, str]) -> list[Source]:
    """Open the files as views, those of one layout together.

    wanted: column name -> the option that names it.
    Raises InputError for a file that is empty, does not read, or has not each wanted column once.
    """
    layouts = {file: _layout(file, wanted) for file in files}
    sources = []
    ordered = sorted(files, key=lambda file: (layouts[file].delimiter, layouts[file].columns, file))
    for number, (layout, group) in enumerate(groupby(ordered, key=layouts.__getitem__)):
        paths = [literal(file) for file in group]
        view = f"source_{number}"
        if layout.delimiter:
            # Columns of a CSV go by their place, so that no name in its header can mean anything to DuckDB.
            names = {column: f"column_{place}" for place, column in enumerate(layout.columns)}
            types = {f"column_{place}": "VARCHAR" for place in range(len(layout.columns))}
            relation = select(con, "read_csv", paths=paths, columns=types, delimiter=layout.delimiter)
        else:
            names = {column: column for column in layout.columns}
            relation = select(con, "read_parquet", paths=paths)
        relation.create_view(view)
        sources.append(Source(view, names, is_csv=bool(layout.delimiter)))
    return sources


def unite(
    con: duckdb.DuckDBPyConnection, sources: Sequence[Source], query: str, columns: dict[str, str]
) -> duckdb.DuckDBPyRelation:
    """Run sql/<query>.sql over each source, and give all its rows; columns: the query's parameter -> column name."""
    for source in sources:
        names = {name: source.names[column] for name, column in columns.items()}
        # DuckDB takes no union of two relations with parameters of one name; a view has its values within.
        select(con, query, source=source.view, **names).create_view(f"{query}_of_{source.view}")
    relations = [con.view(f"{query}_of_{source.view}") for source in sources]
    return reduce(lambda one, other: one.union(other), relations)


def _layout(file: Path, wanted: dict[str, str]) -> Layout:
    layout = _parquet_layout(file) if _is_parquet(file) else _csv_layout(file, wanted)
    for column, option in wanted.items():
        times = layout.columns.count(column)
        if times != 1:
            problem = "no column" if times == 0 else f"{times} columns"
            raise InputError(f"{file}: {problem} {column!r}; found {', '.join(layout.columns)}. Pass {option}")
    return layout


def column_names(file: Path) -> tuple[str, ...]:
    """Read what the columns of a file are called. Raises InputError for a file that is empty or cannot be read."""
    return _layout(file, {}).columns


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _parquet_layout(file: Path) -> Layout:
    try:
        return Layout(tuple(pq.read_schema(file).names), "")
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a Parquet file: {error}") from error


def _csv_layout(file: Path, wanted: dict[str, str]) -> Layout:
    try:
        with _open_text(file) as text:
            # A header is one record; line ends within quotes make it several lines.
            start = "".join(islice(text, 100))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    if not start.strip():
        raise InputError(f"{file}: the file is empty; expected a header{' with ' if wanted else ''}{', '.join(wanted)}")
    headers = [Layout(tuple(next(csv.reader(io.StringIO(start), delimiter=d), ())), d) for d in _DELIMITERS]
    return max(headers, key=lambda layout: (len(set(wanted) & set(layout.columns)), len(layout.columns)))


def malformed_records(con: duckdb.DuckDBPyConnection) -> list[Reject]:
    """List the records of CSV files that did not parse in the scans so far, by file and line."""
    try:
        rows = select(con, "malformed_records").fetchall()
    except duckdb.CatalogException:
        # Only a scan of a CSV makes the table of its errors.
        return []
    return [Reject(*row) for row in rows]


def line_numbers(file: Path, records: Sequence[tuple[str | None, ...]], columns: Sequence[str]) -> list[int | None]:
    """Find the line, from 1, on which each record of a CSV file starts; None in a Parquet file.

    records: the values of `columns`, empty ones None; equal records are taken in the order of the file.
    """
    lines: list[int | None] = [None] * len(records)
    if _is_parquet(file):
        return lines
    layout = _csv_layout(file, dict.fromkeys(columns, ""))
    places = [layout.columns.index(column) for column in columns]
    waiting: defaultdict[tuple[str | None, ...], deque[int]] = defaultdict(deque)
    for number, record in enumerate(records):
        waiting[record].append(number)
    with _open_text(file) as text:
        reader = csv.reader(text, delimiter=layout.delimiter)
        line = 1
        for row in reader:
            numbers = waiting.get(tuple(row[p] or None for p in places)) if len(row) > max(places) else None
            if numbers:
                lines[numbers.popleft()] = line
            line = reader.line_num + 1
    return lines


def _open_text(file: Path) -> io.TextIOWrapper:
    raw = gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")  # noqa: SIM115 - closed with the text
    # What is no UTF-8 is found, with its line, by the scan of the whole file.
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
