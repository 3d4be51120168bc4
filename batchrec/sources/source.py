"""A source: an opened view of a log or a table, and the types of its columns."""

from dataclasses import dataclass

import duckdb

from batchrec.sources.file_format import Layout, RowError
from batchrec.sources.formats import format_of
from batchrec.sources.input_files import InputFile


@dataclass(frozen=True)
class Source:
    """Files of one layout, a table of a store or a query, opened as the view `view`.

    names: column -> column of the view. types: column of the view -> DuckDB's type in lower case, "null" if the column
    has no value. files: the files that were opened; empty for a table and a query. row_errors: rows of them that are
    not among those of the view. url: of the table.
    """

    view: str
    names: dict[str, str]
    types: dict[str, str]
    files: tuple[InputFile, ...] = ()
    layout: Layout | None = None
    row_errors: tuple[RowError, ...] = ()
    url: str = ""

    @property
    def places(self) -> tuple[InputFile | str, ...]:
        """The files, or the URL of the table; empty for a query."""
        return (self.url,) if self.url else self.files

    @property
    def is_csv(self) -> bool:
        """Whether the files are CSV."""
        return self.layout is not None and self.layout.is_csv

    @property
    def is_untyped(self) -> bool:
        """Whether every value is text because the format has no types."""
        return self.layout is not None and format_of(self.layout).values_are_text

    def type_of(self, column: str) -> str:
        """Return the type of a column."""
        return self.types[self.names[column]]

    def arrow_type_of(self, column: str) -> str:
        """Return the type of a column in a Parquet file; empty for any other source."""
        layout = self.layout
        is_typed = layout is not None and column in layout.columns and len(layout.types) == len(layout.columns)
        return layout.types[layout.columns.index(column)] if layout is not None and is_typed else ""


def types_in(relation: duckdb.DuckDBPyRelation) -> dict[str, str]:
    """Return the types of a relation's columns by their names, as in Source."""
    return dict(zip(relation.columns, (str(type_.id) for type_ in relation.types), strict=True))
