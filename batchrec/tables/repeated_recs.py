"""Recommendations in which a user has an item, or a rank, twice."""

import duckdb

from batchrec.errors import InputError
from batchrec.tables.queries import select


def refuse_repeats(con: duckdb.DuckDBPyConnection, view: str, where: str) -> None:
    """Raise InputError if a user of a view with user_id, item_id and position has an item or a position twice.

    where: the table, and the option that names it, for the message.
    """
    for user, item, rank in select(con, "tables/repeated_recs", recs=view).limit(1).fetchall():
        twice = f"rank {rank}" if item is None else f"item_id {item!r}"
        raise InputError(f"{where} user_id {user!r} has {twice} in several rows; expected one")
