"""The time that splits a log for validation: models are chosen by the items that users take after it."""

from pathlib import Path

import duckdb

from batchrec.config import TrainingConfig
from batchrec.errors import InputError
from batchrec.tables.queries import literal, select


def validation_cut(con: duckdb.DuckDBPyConnection, sequences: Path, until: int, config: TrainingConfig) -> int | None:
    """Return the time, in Unix seconds, from which items are held out; None if only last items are.

    until: the time before which events count, the result of `log_end`.
    Raises InputError if config.validate is temporal and the log has no such time.
    """
    if config.validate == "last-item":
        return None
    cut: int | None = select(
        con, "tables/validation_cut", path=literal(sequences), until=until, repeat_items=config.repeat_items
    ).fetchall()[0][0]
    if cut is None and config.validate == "temporal":
        raise InputError(
            f"{sequences}: --validate temporal: in no period before the end of the log, with at most 20 % of its "
            "events, do 30 users with earlier events take new items. Pass --validate last-item"
        )
    return cut
