"""Open files as DuckDB views, one per layout, with every value bound."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from functools import reduce
from itertools import groupby

import duckdb

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.compressed import check_whole, is_empty
from batchrec.sources.file_format import Layout, value_of_nested
from batchrec.sources.formats import FORMATS, format_of, layout_of
from batchrec.sources.input_files import InputFile, with_urls
from batchrec.sources.records import Reject, located
from batchrec.sources.source import Source, types_in
from batchrec.tables.queries import select, table_of

_log = logging.getLogger(__name__)

_NESTED = {"list", "array", "struct", "map", "union", "variant"}
# Maximum number of columns that are written in paths; sql/sources/partitions.sql has as many. No table has more: of a
# log these are user, item, time, rating, type and value.
_MAX_PARTITIONS = 6
# Hive and Spark write this into a path for a null.
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def open_sources(
    con: duckdb.DuckDBPyConnection,
    files: Sequence[InputFile],
    wanted: dict[str, str],
    options: CsvOptions = CsvOptions(),
) -> list[Source]:
    """Open the files as views, one view per layout. Empty files among others are skipped with a warning.

    wanted: column name -> the option that names it.
    Raises InputError if a file cannot be read or does not have each wanted column once, or if a column has lists.
    """
    empty = {file for file in files if is_empty(file)}
    filled = [file for file in files if file not in empty] or list(files)
    skipped = [file for file in files if file in empty]
    if skipped and len(filled) < len(files):
        _log.warning("empty files are skipped: %s", shown_files(skipped))
    layouts = {file: layout_of(file, wanted, options) for file in filled}
    # A file without rows does not influence the types.
    read = [file for file in filled if layouts[file].has_rows] or filled
    for file in read:
        if layouts[file].compression != "none":
            check_whole(file)
    for format_ in FORMATS:
        own_files = [file for file in read if layouts[file].format_name == format_.name]
        if own_files:
            for file, columns in format_.columns_without_values(con, own_files).items():
                layouts[file] = layouts[file].without_values(columns)
    ordered = sorted(read, key=lambda file: (astuple(layouts[file]), file))
    sources = []
    for number, (layout, group) in enumerate(groupby(ordered, key=layouts.__getitem__)):
        source = _open(con, f"source_{number}", layout, tuple(group))
        check_types(source, wanted)
        errors = format_of(layout).row_errors(con, source.files, layout, wanted)
        sources.append(replace(source, row_errors=tuple(errors)))
    return sources


def _open(con: duckdb.DuckDBPyConnection, view: str, layout: Layout, files: tuple[InputFile, ...]) -> Source:
    relation = format_of(layout).read(con, files, layout)
    # By position as well: DuckDB renames a Parquet column whose name differs from another's only in case.
    names = dict(zip(layout.columns, relation.columns, strict=False))
    types = types_in(relation)
    types |= {
        names[column]: "null" for column, type_ in zip(layout.columns, layout.types, strict=False) if type_ == "null"
    }
    relation.create_view(view)
    if any(str(file) != str(file.path) for file in files):
        paths, urls = [str(file.path) for file in files], [str(file) for file in files]
        select(con, "sources/named_files", source=view, paths=paths, names=urls).create_view(f"{view}_with_urls")
        view = f"{view}_with_urls"
    if layout.partitions:
        patterns = [rf".*[/\\]{re.escape(key)}=([^/\\]*)[/\\]" for key in layout.partitions]
        patterns += [""] * (_MAX_PARTITIONS - len(patterns))
        values = {f"pattern_{number}": pattern for number, pattern in enumerate(patterns)}
        select(con, "sources/partitions", source=view, null_word=_NO_PARTITION, **values).create_view(
            f"{view}_with_partitions"
        )
        view = f"{view}_with_partitions"
        names |= {key: f"batchrec_partition_{number}" for number, key in enumerate(layout.partitions)}
        types |= {names[key]: "varchar" for key in layout.partitions}
    return Source(view, names, types, files, layout)


def check_types(source: Source, wanted: dict[str, str]) -> None:
    """Raise InputError if a wanted column has lists, structs, maps or durations, or bytes in a query."""
    where = shown_files(source.places) or "the query"
    for column, option in wanted.items():
        type_ = source.type_of(column)
        if type_ in _NESTED:
            raise InputError(
                f"{where}: column {column!r} of {option} has values of type {type_}; expected one value per row. "
                f"Pass a query with {value_of_nested(column, type_)}"
            )
        if type_ == "interval" or source.arrow_type_of(column).startswith("duration"):
            raise InputError(f"{where}: column {column!r} of {option} has durations; expected text or numbers")
        if type_ == "blob":
            raise InputError(
                f"{where}: column {column!r} of {option} has bytes; expected text or numbers. Pass a query with "
                f"decode({column})"
            )


def unite(
    con: duckdb.DuckDBPyConnection, sources: Sequence[Source], query: str, columns: dict[str, str]
) -> duckdb.DuckDBPyRelation:
    """Run sql/<query>.sql over each source and return the union of the rows.

    columns: parameter of the query -> column name. For each parameter x_column the query also gets x_is_number: whether
    the column has floats or decimals.
    """
    for source in sources:
        names = {name: source.names[column] for name, column in columns.items()}
        numbers = {
            name.replace("_column", "_is_number"): source.type_of(column) in ("float", "double", "decimal")
            for name, column in columns.items()
        }
        # DuckDB cannot unite two relations that have parameters of the same name; in a view the values are fixed.
        select(con, query, source=source.view, **names, **numbers).create_view(f"{table_of(query)}_of_{source.view}")
    relations = [con.view(f"{table_of(query)}_of_{source.view}") for source in sources]
    return reduce(lambda one, other: one.union(other), relations)


def shown_files(files: Sequence[InputFile | str]) -> str:
    """Return up to five files or URLs for a log line."""
    more = f" and {len(files) - 5} more" if len(files) > 5 else ""
    return ", ".join(map(str, files[:5])) + more


def describe_error(error: duckdb.Error) -> str:
    """Return a DuckDB error about a source as one line, in the words of batchrec's options if it is a known one."""
    text = with_urls(str(error))
    if isinstance(error, duckdb.InternalException):
        # The first line only: a stack trace follows.
        first_line = text.partition("\n")[0]
        return f"cannot be read, probably because a file is damaged. Download it again. DuckDB says: {first_line}"
    if "state machine reached an invalid state" in text:
        file = re.search(r"^\s*file = (.*)$", text, re.MULTILINE)
        where = file[1] if file else "a file"
        return f"line ends are mixed in {where}, or a quote is misplaced. Use one kind of line end, or pass --quote"
    if "Input is not a GZIP stream" in text:
        return "a gzip file has bytes behind its end. Decompress it with gzip -d, which ignores zeros there"
    if "File is encrypted" in text:
        return "a column is encrypted, which batchrec does not read. Pass a decrypted copy"
    bytes_ = re.search(r'Invalid string encoding found in Parquet file "(.*?)": value', text)
    if bytes_:
        return f"a column of {bytes_[1]} has bytes that are not UTF-8 text. Pass a query that converts them to text"
    return text


def malformed_records(con: duckdb.DuckDBPyConnection, sources: Iterable[Source]) -> list[Reject]:
    """Return the records of text files that did not parse in the scans so far, by file and line."""
    sources = list(sources)
    files = {str(file.path): file for source in sources for file in source.files}
    errors = [error for source in sources for error in source.row_errors]
    rejects = [Reject(str(error.file), error.line, error.reason, error.text) for error in errors]
    try:
        rows = select(con, "sources/malformed_records").fetchall()
    except duckdb.CatalogException:
        # The table of errors exists only after a scan of a CSV.
        return rejects
    return rejects + [
        reject for file, group in groupby(rows, key=lambda row: row[0]) for reject in located(files[file], group)
    ]
