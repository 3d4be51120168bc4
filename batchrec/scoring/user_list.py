"""The list of users to score: those of --users instead of all, and users of a list who have no history."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError, one_line
from batchrec.sources import column_names, fetch, find_files, is_query, is_table_url, table_columns
from batchrec.sources.text_tables import read_text_table
from batchrec.tables.ids import BLANKS, without_blanks
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.sequences_table import Sequences, no_items


def read_user_list(
    file: str, user_type: pa.DataType, run_date: date | None = None, sequences: Path | None = None
) -> pa.Array:
    """Return the user ids of a CSV or Parquet file, a .sql file's SELECT or a table's URL: each once, as `user_type`.

    The ids are in the column user_id, or in the only column. user_type: int64 or string.
    sequences: file of the histories. A header that is the id of one of their users is an error.
    Raises InputError if the file cannot be read, holds no ids, a row has no id, or an id is not an integer although
    user_type is; ConfigError if a query fails.
    """
    column = _user_column(file, user_type, sequences)
    table = read_text_table(file, "--users", {column: "--users FILE with a column user_id"}, run_date=run_date)
    if len(table.rows) == 0:
        raise InputError(f"{file}: holds no users; expected one row per user below the header")
    table = table.without_null_words(column)
    users = table.ids(column, user_type)
    if users.null_count:
        first = table.rows[column].filter(users.is_null())[0].as_py()
        raise InputError(f"{file}: user {first!r}; expected integers, like the user ids of the sequences")
    # Unique as integers, because only then 7 and 7.0 are the same user.
    return pc.unique(users)


def with_users(
    user_ids: pa.Array, chunks: Iterator[pa.RecordBatch], table: Sequences, *, only: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the chunks, and then those of user_ids that have no history, with an empty one.

    only: whether to leave out users who are not in user_ids.
    """
    has_history = np.zeros(len(user_ids), dtype=bool)
    for chunk in chunks:
        places = pc.index_in(without_blanks(chunk["user_id"]), value_set=user_ids)
        has_history[places.drop_null().to_numpy()] = True
        yield chunk.filter(places.is_valid()) if only else chunk
    new_users = user_ids.filter(pa.array(~has_history))
    columns = {
        field.name: new_users if field.name == "user_id" else no_items(len(new_users), field.type)
        for field in table.schema
    }
    yield pa.record_batch(list(columns.values()), schema=table.schema)


def _user_column(file: str, user_type: pa.DataType, sequences: Path | None) -> str:
    """Return the name of the column with the ids. Raises InputError if the file has a user instead of a header."""
    if is_query(file):
        return "user_id"
    if is_table_url(file):
        columns = table_columns(file)
        return columns[0] if len(columns) == 1 else "user_id"
    with connect() as con:
        names = column_names(fetch(con, find_files([file], "--users FILE")[:1], ())[0])
    column = names[0] if len(names) == 1 else "user_id"
    if pa.types.is_integer(user_type):
        is_user = column.strip().lstrip("-").isdigit()
    else:
        is_user = column.lower() != "user_id" and sequences is not None and _is_user(column, sequences)
    if is_user:
        raise InputError(f"{file}: the first line is {column!r}; expected a header with the column user_id")
    return column


def _is_user(text: str, sequences: Path) -> bool:
    user = without_blanks(pa.array([text]))[0].as_py()
    try:
        with connect() as con:
            rows = select(con, "scoring/has_user", path=literal(sequences), blanks=BLANKS, user=user).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{sequences}: cannot be read: {one_line(error)}") from error
    return bool(rows[0][0])
