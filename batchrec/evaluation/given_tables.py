"""The tables that a user of evaluate passes: recommendations to compare (--recs), and test items (--split)."""

import logging
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError
from batchrec.sources.text_tables import TextTable, read_text_table
from batchrec.tables.ids import BLANKS
from batchrec.tables.parquet import cast_batches
from batchrec.tables.queries import literal, materialize, select
from batchrec.tables.repeated_recs import refuse_repeats
from batchrec.tables.sequences_table import Sequences

_log = logging.getLogger(__name__)

_ROWS_AT_A_TIME = 100_000
# Minimum share of the tested users that a table has lists for: below it there is a warning.
_MIN_SHARE = 0.5


def given_lists(con: duckdb.DuckDBPyConnection, file: str, schema: pa.Schema, k: int) -> Iterator[pa.RecordBatch]:
    """Read a table of user_id, item_id and rank, and return the tested users' lists by `schema`.

    Yields batches of user_id, rank (renumbered from 1, up to k) and item_id, over the tables made by
    `splits.split_sequences`. Raises InputError if the table cannot be read, has a value of another type or a rank or
    an item of a user twice, or if none of the tested users or of the items is in it.
    """
    table = _read(file, "--recs", "user_id", "item_id", "rank")
    columns = {
        "user_id": _values(table, "--recs", "user_id", schema.field("user_id").type).cast(pa.string()),
        "item_id": _values(table, "--recs", "item_id", schema.field("item_id").type),
        "position": _values(table, "--recs", "rank", pa.int64()),
    }
    con.from_arrow(pa.table(columns)).create_view("given_recs")
    _check_lists(con, file)
    lists = select(con, "evaluation/given_lists", k=k, blanks=BLANKS)
    yield from cast_batches(lists, schema, _ROWS_AT_A_TIME)
    con.execute("drop view given_recs")


def read_test_pairs(con: duckdb.DuckDBPyConnection, file: str, sequences: Sequences, checked: Path) -> None:
    """Read a table of user_id and item_id into the table test_pairs, with the place of each pair's event.

    checked: the sequences, without events in the future. Raises InputError if the table cannot be read, holds no rows
    or has a pair without an event.
    """
    table = _read(file, "--split", "user_id", "item_id")
    types = {"user_id": sequences.user_type, "item_id": sequences.item_type}
    columns = {name: _values(table, "--split", name, type_).cast(pa.string()) for name, type_ in types.items()}
    con.from_arrow(pa.table(columns)).create_view("listed")
    materialize(con, "evaluation/test_pairs", path=literal(checked), blanks=BLANKS)
    con.execute("drop view listed")
    n_missing, user, item = select(con, "evaluation/pairs_without_event").fetchall()[0]
    if n_missing:
        raise InputError(
            f"{file}: {n_missing} of {len(con.table('test_pairs'))} pairs of --split have no event in "
            f"{sequences.path}, such as user_id {user!r} with item_id {item!r}; expected events of the log. Remove "
            "them, or build the sequences with all events"
        )


def _read(file: str, option: str, *columns: str) -> TextTable:
    """Read the columns of a table as text. Raises InputError for a table without rows."""
    table = read_text_table(file, option, {name: f"{option} FILE with the column {name}" for name in columns})
    if len(table.rows) == 0:
        raise InputError(f"{file}: holds no rows; expected {', '.join(columns)} for {option}")
    return table


def _values(table: TextTable, option: str, column: str, type_: pa.DataType) -> pa.Array:
    """Return a column as int64 or string. Raises InputError for the first value that cannot be of that type."""
    values = table.ids(column, type_)
    if values.null_count:
        text = table.rows[column][pc.index(values.is_null(), True).as_py()].as_py()
        expected = "an integer" if pa.types.is_integer(type_) else "an id"
        of_log = "" if column == "rank" else ", as in the log"
        raise InputError(f"{table.file}: {option} {column} {text!r}; expected {expected}{of_log}")
    return values


def _check_lists(con: duckdb.DuckDBPyConnection, file: str) -> None:
    """Raise InputError for lists that hold a rank or an item twice, or for ids of which none is known."""
    refuse_repeats(con, "given_recs", f"{file}: --recs")
    n_users, n_items, *examples = select(con, "evaluation/given_known", blanks=BLANKS).fetchall()[0]
    given_user, given_item, tested_user, log_item = examples
    n_tested = len(con.table("tested_users"))
    if n_users == 0:
        raise InputError(
            f"{file}: --recs has lists for none of the {n_tested} tested users; its users look like {given_user!r}, "
            f"the tested ones like {tested_user!r}. Write them as the log does"
        )
    if n_items == 0:
        raise InputError(
            f"{file}: --recs has none of the log's items; its items look like {given_item!r}, the log's like "
            f"{log_item!r}. Write them as the log does"
        )
    say = _log.warning if n_users < _MIN_SHARE * n_tested else _log.info
    say("--recs %s: lists for %d of %d tested users; users without a list count as 0", file, n_users, n_tested)
