"""Small tables that people write: rules, users, catalogues. Read as text, from CSV, Parquet or a query."""

from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa

from batchrec.errors import InputError
from batchrec.sources import (
    Source,
    column_names,
    describe,
    find_files,
    is_query,
    malformed_records,
    open_query,
    open_sources,
    swallowing_records,
    unite,
)
from batchrec.tables.queries import connect

_PLACES = ("first", "second", "third", "fourth")


def read_text_table(
    file: str, option: str, columns: dict[str, str], optional: Sequence[str] = (), run_date: date | None = None
) -> pa.Table:
    """Read up to four columns of CSV or Parquet files, or of a .sql file's SELECT, as text without blanks around it.

    columns: column name -> the option that names it; names match without regard to case if no column has the very name.
    optional: columns that may be missing. run_date: what
    getvariable('run_date') returns in a query.
    Returns a string column for each, null where it is empty or missing.
    Raises InputError if a column is missing or a file cannot be read, ConfigError for a query that does not run.
    """
    return read_named_table(file, option, columns, optional, run_date)[0]


def read_named_table(
    file: str, option: str, columns: dict[str, str], optional: Sequence[str] = (), run_date: date | None = None
) -> tuple[pa.Table, tuple[str, ...]]:
    """Read a table as `read_text_table` does; returns the names of all columns that it has beside it.

    optional: if more than fit beside `columns` are there, the last of them are not read.
    """
    with connect() as con:
        try:
            if is_query(file):
                source = open_query(con, Path(file), columns, run_date)
                found = {name: name for name in columns}
                found |= {name: name.lower() for name in optional if name.lower() in source.names}
                sources, there = [source], list(source.names.values())
            else:
                sources, found, there = _open_files(con, file, option, columns, optional)
            names = list(found.values())
            wanted = [names[min(place, len(names) - 1)] for place in range(len(_PLACES))]
            parameters = {f"{place}_column": name for place, name in zip(_PLACES, wanted, strict=True)}
            rows = unite(con, sources, "sources/texts", parameters).to_arrow_table()
            swallowing = [record for source in sources for record in swallowing_records(con, source, list(columns))]
        except duckdb.Error as error:
            raise InputError(f"{file}: {describe(error)}") from error
        bad = malformed_records(con) + [row for record in swallowing for row in record.rows]
    if bad:
        raise InputError(f"{bad[0]}. Fix the table of {option}")
    empty = pa.nulls(len(rows), pa.string())
    arrays = {name: rows[place].cast(pa.string()) for name, place in zip(found, _PLACES, strict=False)}
    table = pa.table({name: arrays.get(name, empty) for name in (*columns, *optional)}).combine_chunks()
    return table, tuple(dict.fromkeys(there))


def _open_files(
    con: duckdb.DuckDBPyConnection, file: str, option: str, columns: dict[str, str], optional: Sequence[str]
) -> tuple[list[Source], dict[str, str], list[str]]:
    """Open the files; returns the sources, how they spell those of the columns that exist, and all their columns."""
    files = find_files([file], f"{option} FILE")
    names = dict.fromkeys(name for path in files for name in column_names(path))
    spelled = {name: _spelled_in(names, name) for name in (*columns, *optional)}
    found = {name: spelled[name] for name in spelled if name in columns or spelled[name] in names}
    wanted = {found[name]: columns.get(name, f"{option} FILE") for name in found}
    return open_sources(con, files, wanted), found, list(names)


def _spelled_in(names: Collection[str], wanted: str) -> str:
    """Return how a column is spelled, in capitals as a warehouse exports it, if only one differs in case alone."""
    alike = [name for name in names if name.lower() == wanted.lower()]
    return alike[0] if wanted not in names and len(alike) == 1 else wanted
