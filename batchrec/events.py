"""Raw events: loaded typed into DuckDB, the rows that cannot be used found and counted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import duckdb

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.queries import materialize, select
from batchrec.sources import (
    Reject,
    Source,
    find_files,
    line_numbers,
    malformed_records,
    open_query,
    open_sources,
    unite,
)

# Ids of these types become integers where every one is; those of any other type are text. All of a CSV is either.
_NUMBERS = {"decimal", "float", "double", "hugeint", "uhugeint"}
_NUMBERS |= {f"{sign}{size}" for sign in ("", "u") for size in ("tinyint", "smallint", "integer", "bigint")}


@dataclass(frozen=True)
class LoadedEvents:
    """How many rows were read, and which of them are no events of a history."""

    n_rows: int
    n_below_min_rating: int
    rejects: list[Reject]


@dataclass(frozen=True)
class _Columns:
    """The column of each role."""

    user: str
    item: str
    timestamp: str
    rating: str | None

    @property
    def options(self) -> dict[str, str]:
        """Column name -> the option that names it."""
        named = {self.user: "--user-column", self.item: "--item-column", self.timestamp: "--timestamp-column"}
        return named | ({self.rating: "--rating-column"} if self.rating else {})

    @property
    def ordered(self) -> list[str]:
        # Where no rating is needed the column of the times stands in for it, and is not looked at.
        return [self.user, self.item, self.timestamp, self.rating or self.timestamp]


def load_events(con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig) -> LoadedEvents:
    """Fill the table loaded_events (user_id, item_id, moment, problem, below_min_rating), a row an event.

    user_id, item_id: int64 where every id is an integer, else text; moment: int64, microseconds UTC.
    Raises InputError for more unusable rows than `config.max_bad_rows`, naming file, line and value of the first,
    ConfigError for a query that does not run.
    """
    needs_rating = config.min_rating is not None
    if config.query is not None:
        columns = _Columns("user_id", "item_id", "timestamp", "rating" if needs_rating else None)
        sources = [open_query(con, Path(config.query), columns.options)]
    else:
        rating = config.rating_column if needs_rating else None
        columns = _Columns(config.user_column, config.item_column, config.timestamp_column, rating)
        sources = open_sources(con, find_files(ratings, "--ratings FILE"), columns.options)
    roles = ("user_column", "item_column", "timestamp_column", "rating_column")
    unite(con, sources, "records", dict(zip(roles, columns.ordered, strict=True))).create_view("records")
    _load(con, sources, columns, config)
    return _check_rejects(con, columns, config)


def _load(con: duckdb.DuckDBPyConnection, sources: list[Source], columns: _Columns, config: SequencesConfig) -> None:
    """Load the events, ids as integers where their type allows it, and once more where one turns out to be text."""
    integers = [_may_be_integers(con, sources, column) for column in (columns.user, columns.item)]
    while True:
        examples = [duckdb.Value(0, duckdb.sqltypes.BIGINT) if integer else "" for integer in integers]
        select(
            con,
            "events",
            users_are_integers=integers[0],
            user_type=examples[0],
            items_are_integers=integers[1],
            item_type=examples[1],
            timestamp_unit=config.timestamp_unit,
            min_rating=config.min_rating,
        ).create_view("events")
        materialize(con, "loaded_events")
        fitting = select(con, "fitting_ids").fetchall()[0]
        if all(fitting):
            return
        integers = [integer and fits for integer, fits in zip(integers, fitting, strict=True)]
        con.execute("drop table loaded_events; drop table if exists reject_errors; drop table if exists reject_scans")


def _may_be_integers(con: duckdb.DuckDBPyConnection, sources: list[Source], column: str) -> bool:
    for source in sources:
        relation = con.view(source.view)
        type_id = relation.types[relation.columns.index(source.names[column])].id
        if not (source.is_csv or type_id in _NUMBERS):
            return False
    return True


def _check_rejects(con: duckdb.DuckDBPyConnection, columns: _Columns, config: SequencesConfig) -> LoadedEvents:
    counts = dict(select(con, "event_counts").fetchall())
    n_rows = sum(counts.values())
    n_used, n_below = counts.get(None, 0), counts.get("below --min-rating", 0)
    malformed = malformed_records(con)
    n_bad = n_rows - n_used - n_below + len(malformed)
    n_rows += len(malformed)
    if n_bad <= config.bad_rows_allowed(n_rows):
        n_unusable = n_bad - len(malformed)
        unusable = list(_unusable(con, columns, config, n_unusable)) if n_unusable else []
        return LoadedEvents(n_rows, n_below, malformed + unusable)
    first = malformed[0] if malformed else next(_unusable(con, columns, config, 1))
    raise InputError(
        f"{first}; {n_bad} of {n_rows} rows cannot be used. "
        f"Mend them, or allow as many with --max-bad-rows (now {config.max_bad_rows})"
    )


def _unusable(
    con: duckdb.DuckDBPyConnection, columns: _Columns, config: SequencesConfig, most: int
) -> Iterator[Reject]:
    con.execute("set preserve_insertion_order = true")
    rows = select(con, "unusable_events", most=most).fetchall()
    for file, group in groupby(rows, key=lambda row: row[0]):
        found = list(group)
        records = [row[2:] for row in found]
        lines = [None] * len(found) if config.query is not None else line_numbers(Path(file), records, columns.ordered)
        for (_, reason, *raw), line in zip(found, lines, strict=True):
            n_values = 4 if reason == "no rating" else 3
            value = raw[2] if reason == "unreadable time" else ",".join(text or "" for text in raw[:n_values])
            yield Reject(file, line, reason, value)
