"""Scans of a whole log by the DuckDB of this process: its typed events, their counts, and the unusable rows."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import duckdb

from batchrec.config import SequencesConfig
from batchrec.sequences.id_types import LIKELY_NULL_WORDS, IdTypes
from batchrec.sequences.log import Log
from batchrec.sequences.reject_texts import shown_value
from batchrec.sequences.since import first_moment
from batchrec.sources import MergedRecord, Reject, check_no_record_lost, malformed_records
from batchrec.tables.ids import BLANKS, LOST_DIGITS, WHOLE_NUMBER, null_pattern
from batchrec.tables.queries import in_file_order, materialize, select


@dataclass(frozen=True)
class Typing:
    """How values are typed. types: of the ids. unit: of numeric times. has_quotes: whether fields may be quoted."""

    types: IdTypes
    unit: str
    has_quotes: bool


class Scans:
    """Scans by one DuckDB, in which the log is the view `records`; merged: its records that a stray quote merged.

    typing: of the last checks.
    An engine derives a class whose scans run on its workers.
    """

    typing: Typing

    def __init__(self, con: duckdb.DuckDBPyConnection, log: Log, merged: Sequence[MergedRecord]) -> None:
        self.con, self.log, self.merged = con, log, merged

    def checks(self, typing: Typing) -> list[dict[str, Any]]:
        """Type all events, and return the rows of sql/sequences/load_checks.sql."""
        self.typing = typing
        drop_scan(self.con)
        columns = loaded_columns(self.log.config)
        values = typed_by(self.log.config, typing)
        materialize(self.con, "sequences/loaded_events", "sequences/events", columns=columns, **values)
        checks: list[dict[str, Any]] = select(self.con, "sequences/load_checks").to_arrow_table().to_pylist()
        return checks

    def id_of_form(self, role: str, form: str, share: float = 0.5) -> str | None:
        """Return an id of a role that matches a regular expression, if at least a share of the first ids do."""
        rows = select(self.con, "sequences/ids_of_form", id=f"{role}_id", form=form, share=share).fetchall()
        return str(rows[0][0]) if rows else None

    def missing_word(self, role: str) -> tuple[str, int] | None:
        """Return the most frequent id of a role that is likely a word for a missing one, and its number of events."""
        words = list(LIKELY_NULL_WORDS)
        rows = select(self.con, "sequences/likely_missing", id=f"{role}_id", words=words).fetchall()
        return rows[0] if rows else None

    def counts(self) -> Counter[str | None]:
        """Count the events by the reason why they are in no history; None: they are in one."""
        return Counter(dict(select(self.con, "sequences/event_counts").fetchall()))

    def malformed(self) -> list[Reject]:
        """Return the records that did not parse. Raises InputError if others were lost or counted twice with them."""
        malformed = malformed_records(self.con, self.log.sources)
        for source in self.log.sources:
            check_no_record_lost(self.con, source, malformed, self.merged)
        return malformed

    def unusable(self, n_rows: int) -> Iterator[Reject]:
        """Yield up to n_rows events that cannot be used, in the order of the files."""
        view_events(self.con, self.log.config, self.typing)
        with in_file_order(self.con):
            rows = select(self.con, "sequences/unusable_events", n_rows=n_rows).fetchall()
        for file, group in groupby(rows, key=lambda row: row[0]):
            events = list(group)
            lines = self.log.lines(file, [row[2:] for row in events])
            for (_, reason, *raw), line in zip(events, lines, strict=True):
                yield Reject(file, line, reason, shown_value(reason, raw))

    def example(self, criterion: int | str) -> Reject:
        """Return the first event with a kind of time (int), or an unfit user or item id (str): file, line, value."""
        time_kind, unfit = (criterion, None) if isinstance(criterion, int) else (None, criterion)
        view_events(self.con, self.log.config, self.typing)
        with in_file_order(self.con):
            (file, *raw), *_ = select(self.con, "sequences/example_event", time_kind=time_kind, unfit=unfit).fetchall()
        (line,) = self.log.lines(file, [tuple(raw)])
        column, value = {"user": (self.log.user, raw[0]), "item": (self.log.item, raw[1])}.get(
            str(criterion), (self.log.timestamp, raw[2])
        )
        return Reject(file, line, column, value)


def loaded_columns(config: SequencesConfig) -> list[str]:
    """Return the names of the columns of loaded_events."""
    of_history = ["user_id", "item_id", "moment", *(["weight", "is_seen"] if config.weighs_events else [])]
    return [*of_history, "before_since", "below_min_rating", "problem", "user_fits", "item_fits", "time_kind"]


def drop_scan(con: duckdb.DuckDBPyConnection) -> None:
    """Drop the events and errors of an earlier scan."""
    con.execute("drop table if exists loaded_events; drop table if exists reject_errors")
    con.execute("drop table if exists reject_scans")


def view_events(con: duckdb.DuckDBPyConnection, config: SequencesConfig, typing: Typing) -> None:
    """Make the view `events`, the typed records."""
    select(con, "sequences/events", **typed_by(config, typing)).create_view("events")


def typed_by(config: SequencesConfig, typing: Typing) -> dict[str, Any]:
    """Return the parameters of sql/sequences/events.sql."""
    types = typing.types
    integers = {True: duckdb.Value(0, duckdb.sqltypes.BIGINT), False: ""}
    more_words = config.csv_options.null_words
    return {
        "users_are_integers": types.users.are_integers,
        "user_type": integers[types.users.are_integers],
        "users_must_be_integers": config.user_id_type == "integer",
        "items_are_integers": types.items.are_integers,
        "item_type": integers[types.items.are_integers],
        "items_must_be_integers": config.item_id_type == "integer",
        "null_words": null_pattern(more_words),
        "has_null_words": bool(more_words),
        "has_quotes": typing.has_quotes,
        "blanks": BLANKS,
        "whole_number": WHOLE_NUMBER,
        "lost_digits": LOST_DIGITS,
        "timestamp_format": config.timestamp_format,
        "timestamp_unit": typing.unit,
        "since": first_moment(config),
        "min_rating": config.min_rating,
        **_weight_parameters(config),
    }


def _weight_parameters(config: SequencesConfig) -> dict[str, Any]:
    weights, steps = config.weight_of_type, config.value_steps
    value_weight = "steps" if steps else config.value_weight
    return {
        "types": list(weights) or None,
        "type_weights": list(weights.values()) or None,
        "are_seen": [name in config.seen_types for name in weights] or None,
        "value_weight": None if config.value_column is None else value_weight,
        "steps": [value for value, _ in steps] or None,
        "step_weights": [weight for _, weight in steps] or None,
    }
