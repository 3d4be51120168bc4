"""Files of events or of a catalogue: found, recognised, and opened as relations with every value bound."""

import csv
import glob
import gzip
import io
import re
import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import reduce
from itertools import groupby, islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import ConfigError, InputError
from batchrec.queries import literal, select

_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_DELIMITERS = ",;\t|"

# A review may be longer than the 128 KiB at which Python's reader stops.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Layout:
    """How a file is laid out: what its columns are called, in its order, and its marks (CSV) or types (Parquet)."""

    columns: tuple[str, ...]
    delimiter: str = ""
    new_line: str = ""
    types: tuple[str, ...] = ()


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
    try:
        if Path(path).is_file():
            return [Path(path)]
        # An empty path, such as that of a variable of a shell which is not set, means no folder.
        is_folder = path != "" and Path(path).is_dir()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. Pass {option}") from error
    if is_folder:
        files = [f for f in Path(path).rglob("*") if f.name.lower().endswith(_SUFFIXES) and _is_shown(f, path)]
        expected = f"a folder with {', '.join(_SUFFIXES)} files"
    else:
        files = [Path(f) for f in glob.glob(path, recursive=True) if Path(f).is_file()]
        expected = f"a file, a folder or a glob. Pass {option}"
    if not files:
        raise InputError(f"{path}: no file found; expected {expected}")
    return files


def _is_shown(file: Path, folder: str) -> bool:
    # What other tools keep for themselves: checkpoints, temporary files, logs of transactions.
    return file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def open_sources(con: duckdb.DuckDBPyConnection, files: Sequence[Path], wanted: dict[str, str]) -> list[Source]:
    """Open the files as views, those of one layout together.

    wanted: column name -> the option that names it.
    Raises InputError for a file that is empty, does not read, or has not each wanted column once.
    """
    layouts = {file: _layout(file, wanted) for file in files}
    sources = []
    ordered = sorted(files, key=lambda file: (astuple(layouts[file]), file))
    for number, (layout, group) in enumerate(groupby(ordered, key=layouts.__getitem__)):
        paths = [literal(file) for file in group]
        view = f"source_{number}"
        if layout.delimiter:
            # Columns of a CSV go by their place, so that no name in its header can mean anything to DuckDB.
            types = {f"column_{place}": "VARCHAR" for place in range(len(layout.columns))}
            marks = {"delimiter": layout.delimiter, "new_line": layout.new_line}
            relation = select(con, "read_csv", paths=paths, columns=types, **marks)
        else:
            relation = select(con, "read_parquet", paths=paths)
        # By place too: DuckDB renames a Parquet column whose name differs from another's in case alone.
        names = dict(zip(layout.columns, relation.columns, strict=False))
        relation.create_view(view)
        sources.append(Source(view, names, is_csv=bool(layout.delimiter)))
    return sources


def open_query(con: duckdb.DuckDBPyConnection, file: Path, wanted: Iterable[str]) -> Source:
    """Open the rows of the one SELECT that a file holds as a view.

    Raises ConfigError for a file that holds anything else, or a query without each wanted column.
    """
    try:
        statements = con.extract_statements(file.read_text(encoding="utf-8-sig"))
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise ConfigError(f"{file}: holds {len(statements)} statements; expected one SELECT")
        # As text, for a relation takes no comment after the semicolon; it is the one SELECT that was just checked.
        con.execute(f"create view query as {statements[0].query}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except duckdb.ProgrammingError as error:
        raise ConfigError(f"{file}: {error}") from error
    found = {name.lower(): name for name in con.view("query").columns}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ConfigError(f"{file}: the query has no column {missing[0]!r}; found {', '.join(found.values())}")
    select(con, "read_query", query_file=str(file)).create_view("source_query")
    return Source("source_query", found)


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
        with file.open("rb") as opened:
            schema = pq.read_schema(opened)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a Parquet file: {error}") from error
    return Layout(tuple(schema.names), types=tuple(map(str, schema.types)))


def _csv_layout(file: Path, wanted: dict[str, str]) -> Layout:
    try:
        with _open_text(file) as text:
            # A header is one record; line ends within quotes make it several lines.
            start = list(islice(text, 100))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    if not "".join(start).strip():
        raise InputError(f"{file}: the file is empty; expected a header{' with ' if wanted else ''}{', '.join(wanted)}")
    headers = [_header(start, delimiter) for delimiter in _DELIMITERS]
    return max(headers, key=lambda layout: (len(set(wanted) & set(layout.columns)), len(layout.columns)))


def _header(start: list[str], delimiter: str) -> Layout:
    reader = csv.reader(start, delimiter=delimiter)
    columns = tuple(next(reader))
    # DuckDB takes the first line end for that of the records, though it may stand within quotes.
    last_line = start[reader.line_num - 1]
    ends = {"\r\n": r"\r\n", "\r": r"\r"}
    return Layout(columns, delimiter, ends.get(last_line[len(last_line.rstrip("\r\n")) :], r"\n"))


def in_words(error: duckdb.Error) -> str:
    """Say in a line what DuckDB says of a source in several, or in its own terms."""
    text = str(error)
    if "state machine reached an invalid state" not in text:
        return text
    file = re.search(r"^\s*file = (.*)$", text, re.MULTILINE)
    where = file[1] if file else "a CSV file"
    return (
        f"{where}: some lines end in another way than the first one, or a quote stands where none may. Make them alike"
    )


def malformed_records(con: duckdb.DuckDBPyConnection) -> list[Reject]:
    """List the records of CSV files that did not parse in the scans so far, by file and line."""
    try:
        rows = select(con, "malformed_records").fetchall()
    except duckdb.CatalogException:
        # Only a scan of a CSV makes the table of its errors.
        return []
    return [reject for file, group in groupby(rows, key=lambda row: row[0]) for reject in _located(file, group)]


def _located(file: str, errors: Iterable[tuple[str, int, str, str]]) -> Iterator[Reject]:
    # DuckDB counts records, not lines, but knows at which byte, from 1, each starts, with the empty lines before it.
    with _open_text(Path(file), "latin-1") as text:
        line, end = 0, 0
        for _, start, reason, value in errors:
            record = value.lstrip("\r\n")
            while end < start + len(value) - len(record) and (found := text.readline()):
                line, end = line + 1, end + len(found)
            yield Reject(file, line, reason, record)


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


def _open_text(file: Path, encoding: str = "utf-8-sig") -> io.TextIOWrapper:
    raw = gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")  # noqa: SIM115 - closed with the text
    # What is no UTF-8 is found, with its line, by the scan of the whole file.
    return io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="")
