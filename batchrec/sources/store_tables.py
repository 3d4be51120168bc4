"""Tables that URLs name, such as delta:///folder or postgresql://host/db?table=name: stored and opened like files."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa

from batchrec.errors import BatchrecError, InputError
from batchrec.sources.background import in_background
from batchrec.sources.file_format import show_names
from batchrec.sources.opening import check_types
from batchrec.sources.source import Source, types_in
from batchrec.sources.stores import TABLE_SOURCES, Since
from batchrec.sources.usual_columns import found_columns
from batchrec.system.stores import store_error
from batchrec.system.urls import Url
from batchrec.tables.queries import select


def is_table_url(text: str) -> bool:
    """Return whether a text is the URL of a table in a store, by its scheme."""
    return text.partition("://")[0].lower() in TABLE_SOURCES and "://" in text


def split_tables(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths, folders and globs of files, and the URLs of tables."""
    return [path for path in paths if not is_table_url(path)], [path for path in paths if is_table_url(path)]


def table_columns(text: str) -> tuple[str, ...]:
    """Return the column names of the table that a URL names. Raises as `open_tables` does."""
    url = Url.parse(text)
    with TABLE_SOURCES[url.scheme].open(url) as table:
        return tuple(table.schema().names)


def local_path_of(text: str) -> str:
    """Return the path of the file that a duckdb:// URL names; any other text as it is."""
    return Url.parse(text).path if text.lower().startswith("duckdb://") else text


def open_tables(
    con: duckdb.DuckDBPyConnection, urls: Sequence[str], wanted: dict[str, str], since: Since | None = None
) -> list[Source]:
    """Read the wanted columns of the tables into DuckDB, which can spill them, and open each as a view.

    Each table is read once, because a job reads its rows several times and they could change meanwhile.
    wanted: column name -> the option that names it. since: rows that need not be read.
    Raises ConfigError for a URL that is incomplete, a query that does not run or a package that is not installed;
    StoreError if a store fails; InputError if a table does not have each wanted column once, or if one has lists.
    """
    return [_open(con, f"store_table_{number}", Url.parse(text), wanted, since) for number, text in enumerate(urls)]


def _open(con: duckdb.DuckDBPyConnection, name: str, url: Url, wanted: dict[str, str], since: Since | None) -> Source:
    with closing(in_background(_schema_and_batches(url, wanted, since))) as items:
        decimals = _store(con, name, items)
    relation = select(con, "sources/read_table", table=name, url=str(url))
    names = dict(zip(wanted, relation.columns, strict=False))
    types = types_in(relation)
    types |= {names[column]: "decimal" for column in decimals}
    counts = select(con, "sources/values_per_column", table=name).fetchall()[0]
    types |= {column: "null" for column, n_values in zip(names.values(), counts, strict=True) if n_values == 0}
    relation.create_view(f"source_{name}")
    source = Source(f"source_{name}", names, types, url=str(url))
    check_types(source, wanted)
    return source


def _schema_and_batches(url: Url, wanted: dict[str, str], since: Since | None) -> Generator[pa.Schema | pa.RecordBatch]:
    """Yield the schema of the wanted columns, then their rows."""
    with TABLE_SOURCES[url.scheme].open(url) as table:
        _check_columns(url, table.schema().names, wanted)
        stream = table.read(list(wanted), since)
        yield stream.schema
        try:
            yield from stream
        except (OSError, pa.ArrowException) as error:
            raise store_error(url, "read", error) from error


def _check_columns(url: Url, columns: Sequence[str], wanted: dict[str, str]) -> None:
    for column, option in wanted.items():
        times = list(columns).count(column)
        if times == 0:
            raise InputError(f"{url}: no column {column!r}; {found_columns(columns, column, option)} Pass {option}")
        if times > 1:
            raise InputError(f"{url}: {times} columns {column!r}; found {show_names(columns)}. Pass {option}")


def _store(con: duckdb.DuckDBPyConnection, name: str, items: Iterator[Any]) -> list[str]:
    """Store batches, which follow their schema, as a table. Returns the columns whose decimals are stored as text."""
    schema: pa.Schema = next(items)
    stored = pa.schema([_storable(column) for column in schema])
    failures: list[BatchrecError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in items:
                columns = [column.cast(field.type) for column, field in zip(batch, stored, strict=True)]
                yield pa.record_batch(columns, stored)
        except BatchrecError as error:
            failures.append(error)
            raise

    try:
        con.from_arrow(pa.RecordBatchReader.from_batches(stored, batches())).create(name)
    except duckdb.Error as error:
        # DuckDB has put an error of its own in place of the store's.
        if failures:
            raise failures[0] from error
        raise
    return [column.name for column, kept in zip(schema, stored, strict=True) if column.type != kept.type]


def _storable(column: pa.Field) -> pa.Field:
    """Return the column as text if it has decimals that DuckDB does not read: of a database, or of over 38 digits."""
    is_numeric = isinstance(column.type, pa.OpaqueType) and column.type.type_name == "numeric"
    return column.with_type(pa.string()) if is_numeric or pa.types.is_decimal256(column.type) else column
