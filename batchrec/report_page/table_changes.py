"""The changes between two tables of recommendations: users, items, and the lists that moved most."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from batchrec.tables.queries import literal, materialize, rows_of


@dataclass(frozen=True)
class MovedList:
    """A user's list of n_tonight items, of which n_kept were in it before. came, gone: the first items that differ."""

    user_id: int | str
    n_tonight: int
    n_kept: int
    came: list[Any]
    gone: list[Any]


@dataclass(frozen=True)
class TableChanges:
    """The changes from one table to another. "in": only in the later table, "out": only in the earlier one.

    same_lists: users whose list holds the same items. overlap: the mean share of a list that was in it before, None if
    no user is in both tables. moved: the lists that keep the smallest share of items, that share first.
    """

    users_in_both: int
    users_in: int
    users_out: int
    items_in_both: int
    items_in: int
    items_out: int
    same_lists: int
    overlap: float | None
    moved: list[MovedList]


def same_id_types(one: Path, other: Path) -> bool:
    """Return whether the ids of two tables are of the same types, so that they can be compared."""
    schemas = [pq.read_schema(file) for file in (one, other)]
    types = [[schema.field(name).type for name in ("user_id", "item_id")] for schema in schemas]
    return types[0] == types[1]


def table_changes(
    con: duckdb.DuckDBPyConnection, recs: Path, previous: Path, n_lists: int, n_items: int
) -> TableChanges:
    """Compare two tables of the same id types; previous: the earlier one.

    n_lists: maximum number of lists in `moved`. n_items: of the items that came and that are gone of each.
    """
    both = {"recs": literal(recs), "previous": literal(previous)}
    materialize(con, "report/moves", **both)
    (users,) = rows_of(con, "report/moved_users")
    (items,) = rows_of(con, "report/moved_items", **both)
    moved = rows_of(con, "report/moved_lists", **both, n_users=n_lists, k=n_items)
    return TableChanges(**users, **items, moved=[MovedList(**row) for row in moved])
