"""A list of users to score, instead of all."""

from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError, one_line
from batchrec.sources import column_names, find_files, is_query
from batchrec.sources.text_tables import read_text_table
from batchrec.tables.ids import BLANKS, as_ids, without_blanks
from batchrec.tables.queries import connect, literal, select


def read_user_list(
    file: str, user_type: pa.DataType, run_date: date | None = None, sequences: Path | None = None
) -> pa.Array:
    """Read the user ids of a CSV or Parquet file, or of a .sql file's SELECT, each once, as `user_type`.

    The ids are in the column user_id, or in the only column. user_type: int64 or string.
    sequences: a file of histories; a header that is one of their users is none.
    Raises InputError if they are not, if there are none or one is missing, or if one is not an integer and those of the
    sequences are; ConfigError for a query that does not run.
    """
    column = "user_id"
    if not is_query(file):
        names = column_names(find_files([file], "--users FILE")[0])
        column = names[0] if len(names) == 1 else column
        is_user = pa.types.is_integer(user_type) and column.strip().lstrip("-").isdigit()
        if not is_user and column.lower() != "user_id" and sequences is not None and not pa.types.is_integer(user_type):
            is_user = _is_user(column, sequences)
        if is_user:
            raise InputError(f"{file}: the first line is {column!r}; expected a header with the column user_id")
    text = read_text_table(file, "--users", {column: "--users FILE with a column user_id"}, (), run_date)[column]
    if len(text) == 0:
        raise InputError(f"{file}: holds no users; expected one row per user below the header")
    users = as_ids(text.combine_chunks(), user_type)
    missing = as_ids(text.combine_chunks(), pa.string()).null_count
    if missing:
        raise InputError(f"{file}: {missing} of {len(text)} rows have no user")
    if users.null_count:
        first = text.filter(users.is_null())[0].as_py()
        raise InputError(f"{file}: user {first!r}; expected integers, like the user ids of the sequences")
    # Only as integers are 7 and 7.0 the same user.
    return pc.unique(users)


def _is_user(text: str, sequences: Path) -> bool:
    user = without_blanks(pa.array([text]))[0].as_py()
    try:
        with connect() as con:
            found = select(con, "scoring/has_user", path=literal(sequences), blanks=BLANKS, user=user).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{sequences}: cannot be read: {one_line(error)}") from error
    return bool(found[0][0])
