"""Small tables that people write, such as rules, users and catalogues: read as text.

They are files of CSV or Parquet, queries, or tables of stores.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from batchrec.errors import InputError
from batchrec.sources import (
    Source,
    column_names,
    describe_error,
    fetch,
    find_files,
    is_query,
    is_table_url,
    lost_digits,
    malformed_records,
    merged_records,
    open_query,
    open_sources,
    open_tables,
    table_columns,
    unite,
)
from batchrec.tables.ids import as_ids
from batchrec.tables.queries import connect

_PLACES = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class TextTable:
    """A table that an option names, as text columns; a value is null if it is empty or the table lacks the column.

    names: all columns of the table, also those that were not read. inexact: column of floats that cannot hold its
    whole numbers -> the text of the error if they are ids.
    """

    file: str
    rows: pa.Table
    names: tuple[str, ...] = ()
    inexact: Mapping[str, str] = field(default_factory=dict)

    def written_ids(self, column: str) -> pa.Array:
        """Return a column of ids as they are written. Raises InputError if floats have made one of several."""
        if column in self.inexact:
            raise InputError(self.inexact[column])
        return self.rows[column].combine_chunks()

    def required(self, column: str) -> pa.Array:
        """Return a column that must have a value in each row. Raises InputError if one is missing."""
        values = self.rows[column].combine_chunks()
        if values.null_count:
            raise InputError(f"{self.file}: {values.null_count} of {len(values)} rows have no {column}")
        return values

    def without_null_words(self, column: str) -> Self:
        """Return the table with nulls in place of a column's words for a missing value, as in ids of the log.

        Raises InputError if floats have made one id of several.
        """
        values = as_ids(self.written_ids(column), pa.string())
        return replace(self, rows=self.rows.set_column(self.rows.schema.get_field_index(column), column, values))

    def ids(self, column: str, id_type: pa.DataType) -> pa.Array:
        """Return a column of ids as int64 or string. An id that cannot be of that type is null: nothing has it.

        Raises InputError if a row has no id, or if floats have made one of several.
        """
        self.written_ids(column)
        return as_ids(self.required(column), id_type)


def read_text_table(
    file: str, option: str, columns: dict[str, str], optional: Sequence[str] = (), run_date: date | None = None
) -> TextTable:
    """Read up to four columns of CSV or Parquet files, a .sql file's SELECT or a table's URL, without outer blanks.

    columns: column name -> the option that names it. If no column has that exact name, case is ignored.
    optional: columns that may be missing. If there are more than fit next to `columns`, the last ones are not read.
    run_date: value of getvariable('run_date') in a query.
    Raises InputError if a column is missing or a file cannot be read, ConfigError if a query fails, StoreError if a
    store fails.
    """
    with connect(is_alone=is_query(file)) as con:
        try:
            if is_query(file):
                source = open_query(con, Path(file), columns, run_date)
                spelled = {name: name for name in columns}
                spelled |= {name: name.lower() for name in optional if name.lower() in source.names}
                sources, all_names = [source], list(source.names.values())
            else:
                sources, spelled, all_names = _open_by_names(con, file, option, columns, optional)
            names = list(spelled.values())
            wanted = [names[min(place, len(names) - 1)] for place in range(len(_PLACES))]
            parameters = {f"{place}_column": name for place, name in zip(_PLACES, wanted, strict=True)}
            rows = unite(con, sources, "sources/texts", parameters).to_arrow_table()
            merged = [record for source in sources for record in merged_records(con, source, list(columns))]
            inexact = {
                name: problem
                for source in sources
                for name, spelled_name in spelled.items()
                if (problem := lost_digits(con, source, spelled_name, "ids", file)) is not None
            }
        except duckdb.Error as error:
            raise InputError(f"{file}: {describe_error(error)}") from error
        bad = malformed_records(con, sources) + [row for record in merged for row in record.rows]
    if bad:
        raise InputError(f"{bad[0]}. Fix the table of {option}")
    empty = pa.nulls(len(rows), pa.string())
    arrays = {name: rows[place].cast(pa.string()) for name, place in zip(spelled, _PLACES, strict=False)}
    texts = pa.table({name: arrays.get(name, empty) for name in (*columns, *optional)}).combine_chunks()
    return TextTable(file, texts, tuple(dict.fromkeys(all_names)), inexact)


def _open_by_names(
    con: duckdb.DuckDBPyConnection, file: str, option: str, columns: dict[str, str], optional: Sequence[str]
) -> tuple[list[Source], dict[str, str], list[str]]:
    """Return the opened sources, how they spell the columns that exist, and the names of all their columns."""
    is_table, names_wanted = is_table_url(file), (*columns, *optional)
    files = [] if is_table else fetch(con, find_files([file], f"{option} FILE"), names_wanted)
    of_files = [name for path in files for name in column_names(path)]
    names = dict.fromkeys(table_columns(file) if is_table else of_files)
    spellings = {name: _spelled_in(names, name) for name in names_wanted}
    existing = {name: spelled for name, spelled in spellings.items() if name in columns or spelled in names}
    wanted = {spelled: columns.get(name, f"{option} FILE") for name, spelled in existing.items()}
    sources = open_tables(con, [file], wanted) if is_table else open_sources(con, files, wanted)
    return sources, existing, list(names)


def _spelled_in(names: Collection[str], wanted: str) -> str:
    """Return the spelling of a column among the names: a warehouse exports capitals. Exact names come first."""
    alike = [name for name in names if name.lower() == wanted.lower()]
    return alike[0] if wanted not in names and len(alike) == 1 else wanted
