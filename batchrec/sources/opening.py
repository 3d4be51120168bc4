"""Files opened as relations of DuckDB: those of one layout together, every value bound."""

import logging
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import reduce
from itertools import groupby
from pathlib import Path

import duckdb

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.layouts import Layout, check_whole, is_empty, layout_of
from batchrec.sources.records import Reject, located
from batchrec.tables.queries import literal, select, table_of

_log = logging.getLogger(__name__)

_NESTED = {"list", "array", "struct", "map", "union", "variant"}
# Columns written in paths; sql/partitions.sql has as many.
_MOST_PARTITIONS = 4
# What Hive and Spark write into a path for a null.
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Source:
    """What is opened as the view `view`.

    names: column -> that of the view. types: column of the view -> DuckDB's type in lower case, "null" for a column
    that holds no value. files: what it was opened from; empty for a query.
    """

    view: str
    names: dict[str, str]
    types: dict[str, str]
    files: tuple[Path, ...] = ()
    layout: Layout | None = None

    @property
    def is_csv(self) -> bool:
        """Whether every value is text of a CSV file."""
        return self.layout is not None and self.layout.is_csv

    def type_of(self, column: str) -> str:
        """Return the type of a column."""
        return self.types[self.names[column]]

    def arrow_type_of(self, column: str) -> str:
        """Return the type that a Parquet file gives a column; empty for anything else."""
        layout = self.layout
        is_typed = layout is not None and column in layout.columns and len(layout.types) == len(layout.columns)
        return layout.types[layout.columns.index(column)] if layout is not None and is_typed else ""


def open_sources(
    con: duckdb.DuckDBPyConnection, files: Sequence[Path], wanted: dict[str, str], options: CsvOptions = CsvOptions()
) -> list[Source]:
    """Open the files as views, those of one layout together. Empty files among others are left out with a warning.

    wanted: column name -> the option that names it.
    Raises InputError for a file that cannot be read, does not have each wanted column once, or has lists in one.
    """
    empty = {file for file in files if is_empty(file)}
    filled = [file for file in files if file not in empty] or list(files)
    left_out = [file for file in files if file in empty]
    if left_out and len(filled) < len(files):
        _log.warning("empty files are left out: %s", shown_files(left_out))
    layouts = {file: layout_of(file, wanted, options) for file in filled}
    # A file without rows has no say in the types.
    read = [file for file in filled if layouts[file].has_rows] or filled
    for file in read:
        if layouts[file].compression != "none":
            check_whole(file)
    for file, columns in _columns_without_values(con, [file for file in read if not layouts[file].is_csv]).items():
        layouts[file] = layouts[file].without_values(columns)
    ordered = sorted(read, key=lambda file: (astuple(layouts[file]), file))
    sources = []
    for number, (layout, group) in enumerate(groupby(ordered, key=layouts.__getitem__)):
        sources.append(_open(con, f"source_{number}", layout, tuple(group)))
        check_types(sources[-1], wanted)
    return sources


def _columns_without_values(con: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> dict[Path, set[str]]:
    """Name the columns of Parquet files that hold no value, by file."""
    found: dict[Path, set[str]] = {}
    if files:
        # Not by pyarrow: it ends the process when it is asked for a column whose statistics are damaged.
        for file, column in select(con, "sources/columns_without_values", paths=list(map(literal, files))).fetchall():
            found.setdefault(Path(file), set()).add(column)
    return found


def _open(con: duckdb.DuckDBPyConnection, view: str, layout: Layout, files: tuple[Path, ...]) -> Source:
    paths = [literal(file) for file in files]
    if layout.is_csv:
        # Columns of a CSV go by their place, so that no name in its header can mean anything to DuckDB.
        types = {f"column_{place}": "VARCHAR" for place in range(len(layout.columns))}
        relation = select(
            con,
            "sources/read_csv",
            paths=paths,
            columns=types,
            delimiter=layout.delimiter,
            quote=layout.quote,
            new_line=layout.new_line,
            has_header=layout.header_lines > 0,
            compression=layout.compression,
        )
    else:
        relation = select(con, "sources/read_parquet", paths=paths)
    # By place too: DuckDB renames a Parquet column whose name differs from another's in case alone.
    names = dict(zip(layout.columns, relation.columns, strict=False))
    types = dict(zip(relation.columns, (str(found.id) for found in relation.types), strict=True))
    types |= {
        names[column]: "null" for column, found in zip(layout.columns, layout.types, strict=False) if found == "null"
    }
    relation.create_view(view)
    if layout.partitions:
        patterns = [rf".*[/\\]{re.escape(key)}=([^/\\]*)[/\\]" for key in layout.partitions]
        patterns += [""] * (_MOST_PARTITIONS - len(patterns))
        values = {f"pattern_{number}": pattern for number, pattern in enumerate(patterns)}
        select(con, "sources/partitions", source=view, null_word=_NO_PARTITION, **values).create_view(
            f"{view}_with_partitions"
        )
        view = f"{view}_with_partitions"
        names |= {key: f"batchrec_partition_{number}" for number, key in enumerate(layout.partitions)}
        types |= {names[key]: "varchar" for key in layout.partitions}
    return Source(view, names, types, files, layout)


def check_types(source: Source, wanted: dict[str, str]) -> None:
    """Raise InputError if a wanted column holds lists, structs, maps or lengths of time, or a query's holds bytes."""
    where = shown_files(source.files) if source.files else "the query"
    for column, option in wanted.items():
        found = source.type_of(column)
        if found in _NESTED:
            raise InputError(
                f"{where}: column {column!r} of {option} holds values of type {found}; expected one value per row. "
                f"Pass a query with unnest({column})"
            )
        if found == "interval" or source.arrow_type_of(column).startswith("duration"):
            raise InputError(f"{where}: column {column!r} of {option} holds lengths of time; expected text or numbers")
        if found == "blob":
            raise InputError(
                f"{where}: column {column!r} of {option} holds bytes; expected text or numbers. Pass a query with "
                f"decode({column})"
            )


def unite(
    con: duckdb.DuckDBPyConnection, sources: Sequence[Source], query: str, columns: dict[str, str]
) -> duckdb.DuckDBPyRelation:
    """Run sql/<query>.sql over each source and return all its rows; columns: the query's parameter -> column name.

    For each parameter x_column the query gets x_is_number too: whether the column holds floats or decimals.
    """
    for source in sources:
        names = {name: source.names[column] for name, column in columns.items()}
        numbers = {
            name.replace("_column", "_is_number"): source.type_of(column) in ("float", "double", "decimal")
            for name, column in columns.items()
        }
        # DuckDB takes no union of two relations with parameters of one name; a view has its values within.
        select(con, query, source=source.view, **names, **numbers).create_view(f"{table_of(query)}_of_{source.view}")
    relations = [con.view(f"{table_of(query)}_of_{source.view}") for source in sources]
    return reduce(lambda one, other: one.union(other), relations)


def shown_files(files: Sequence[Path]) -> str:
    """List up to five files for a line of the log."""
    more = f" and {len(files) - 5} more" if len(files) > 5 else ""
    return ", ".join(map(str, files[:5])) + more


def describe_error(error: duckdb.Error) -> str:
    """Say in one line what DuckDB says of a source in several, or in its own terms."""
    text = str(error)
    if isinstance(error, duckdb.InternalException):
        # A stack trace follows.
        said = text.partition("\n")[0]
        return f"cannot be read, probably because a file is damaged. Fetch it again. DuckDB says: {said}"
    if "state machine reached an invalid state" in text:
        file = re.search(r"^\s*file = (.*)$", text, re.MULTILINE)
        where = file[1] if file else "a CSV file"
        return f"{where}: line ends differ, or a quote is where none may be. Make the line ends alike, or pass --quote"
    bytes_ = re.search(r'Invalid string encoding found in Parquet file "(.*?)": value', text)
    if bytes_:
        return f"{bytes_[1]}: a column holds bytes that are not UTF-8 text. Pass a query that turns them into text"
    return text


def malformed_records(con: duckdb.DuckDBPyConnection) -> list[Reject]:
    """List the records of CSV files that did not parse in the scans so far, by file and line."""
    try:
        rows = select(con, "sources/malformed_records").fetchall()
    except duckdb.CatalogException:
        # Only a scan of a CSV makes the table of its errors.
        return []
    return [reject for file, group in groupby(rows, key=lambda row: row[0]) for reject in located(file, group)]
