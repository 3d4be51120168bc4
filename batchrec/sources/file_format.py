"""The interface of file formats, what a new format has to provide, and the layout of a file of any format."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from urllib.parse import unquote

import duckdb

from batchrec.config import CsvOptions
from batchrec.sources.compressed import Compression
from batchrec.sources.input_files import InputFile
from batchrec.tables.queries import identifier

# Words of DuckDB's SQL that tables have as names of columns.
_SQL_WORDS = {"all", "any", "array", "asc", "case", "check", "column", "default", "desc", "distinct", "end", "from"}
_SQL_WORDS |= {"group", "limit", "not", "offset", "on", "only", "order", "primary", "references", "show", "some"}
_SQL_WORDS |= {"table", "to", "unique", "when", "where", "window"}


@dataclass(frozen=True)
class Layout:
    """The layout of a file: its columns in order, and its delimiter and quote (CSV) or its types (Parquet).

    partitions: columns that are written in the path, as in dt=2024-01-01. header_lines: number of lines of the header
    record. has_rows: False only for a Parquet file without rows. format_name: name of the `Format`.
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
    format_name: str = ""

    @property
    def is_csv(self) -> bool:
        """Whether the values of the file are separated by a delimiter."""
        return bool(self.delimiter)

    def without_values(self, columns: Collection[str]) -> "Layout":
        """Return the layout with the type "null" for columns that have no value."""
        types = ("null" if name in columns else type_ for name, type_ in zip(self.columns, self.types, strict=False))
        return replace(self, types=tuple(types))


@dataclass(frozen=True)
class RowError:
    """A row of a text file that is not a record. line: from 1; None if it is not known. text: the row."""

    file: InputFile
    line: int | None
    reason: str
    text: str


class Format(ABC):
    """A file format. To add one, derive a class and list it in sources/formats.py.

    values_are_text: whether `read` returns every value as text, as the format has no types.
    """

    name: str
    suffixes: tuple[str, ...]
    values_are_text: bool = False

    @abstractmethod
    def recognises(self, file: InputFile, start: bytes) -> bool:
        """Return whether a file is of this format; start: its first 32 bytes."""

    @abstractmethod
    def layout(self, file: InputFile, wanted: dict[str, str], options: CsvOptions) -> Layout:
        """Return the layout of a file; wanted: column name -> the option that names it.

        Raises InputError if the file is not of this format.
        """

    @abstractmethod
    def read(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile], layout: Layout
    ) -> duckdb.DuckDBPyRelation:
        """Return the rows of files of one layout: the columns in the layout's order, then batchrec_file, the path."""

    def columns_without_values(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile]
    ) -> dict[InputFile, set[str]]:
        """Return the columns of files that have no value, by file, as far as this is known without a scan."""
        return {}

    def row_errors(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile], layout: Layout, wanted: dict[str, str]
    ) -> list[RowError]:
        """Return the rows of files of one layout that `read` leaves out without reporting them to DuckDB.

        wanted: column name -> the option that names it. Raises InputError if a column has nested values.
        """
        return []


def show_names(names: Sequence[str]) -> str:
    """Return up to 30 names for an error message, in quotes if they have blanks, commas or unprintable characters."""
    shown = [
        name if name and name == name.strip() and name.isprintable() and "," not in name else repr(name)
        for name in names[:30]
    ]
    text = ", ".join(name if len(name) <= 60 else f"{name[:60]}..." for name in shown)
    return text + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def partitions_of(name: str) -> list[tuple[str, str]]:
    """Return the columns that are written in the path or URL of a file, and their values."""
    folders = PurePath(name).parts[:-1]
    return [(key, unquote(value)) for key, sep, value in (part.partition("=") for part in folders) if sep]


def sql_name(column: str) -> str:
    """Return the name of a column as a query spells it: in quotes if it is a word of SQL or has other characters."""
    is_plain = re.fullmatch(r"[A-Za-z_]\w*", column, re.ASCII) and column.lower() not in _SQL_WORDS
    return column if is_plain else identifier(column)


def value_of_nested(column: str, type_: str) -> str:
    """Return for the error on nested values what makes rows of one value each in a query."""
    column = sql_name(column)
    if type_ == "struct":
        return f"the field that holds the id or the time, like {column}.field"
    if type_ in ("variant", "union"):
        # Of these each row has one value, which may be a list.
        return f"cast({column} as varchar)"
    return f"unnest(map_keys({column}))" if type_ == "map" else f"unnest({column})"
