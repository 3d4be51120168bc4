"""A list of users to score, instead of all."""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError
from batchrec.queries import connect
from batchrec.sources import column_names, find_files, in_words, malformed_records, open_sources, unite


def read_user_list(file: str, user_type: pa.DataType) -> pa.Array:
    """Read the user ids of a CSV or Parquet file, each once, as `user_type` (int64 or string).

    The ids stand in the column user_id, or in the only column. Raises InputError where they do not, where there are
    none or one is missing, or where one is no integer and those of the sequences are.
    """
    paths = find_files([file], "--users FILE")
    names = column_names(paths[0])
    column = names[0] if len(names) == 1 else "user_id"
    if pa.types.is_integer(user_type) and column.strip().lstrip("-").isdigit():
        raise InputError(f"{file}: the first line is {column!r}; expected a header with the column user_id")
    with connect() as con:
        try:
            sources = open_sources(con, paths, {column: "--users FILE with a column user_id"})
            found = (
                unite(con, sources, "user_ids", {"user_column": column}).to_arrow_table()["user_id"].combine_chunks()
            )
        except duckdb.Error as error:
            raise InputError(f"{file}: {in_words(error)}") from error
        malformed = malformed_records(con)
    if malformed:
        raise InputError(f"{malformed[0]}. Mend the list of users")
    if len(found) == 0:
        raise InputError(f"{file}: holds no users; expected a row a user below the header")
    if found.null_count:
        raise InputError(f"{file}: {found.null_count} of {len(found)} rows have no user")
    if pa.types.is_integer(user_type):
        # Floats' spelling of integers, as in the ratings.
        found = pc.replace_substring_regex(found, r"\.0$", "")
    try:
        # Only as integers are 7 and 007 the same user.
        return pc.unique(found.cast(user_type))
    except pa.ArrowInvalid as error:
        raise InputError(f"{file}: {error}; expected integers, like the user ids of the sequences") from error
