"""The end of a log. An event that is ahead of now, such as one of 9999-12-31, never counts as the end."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from batchrec.arrays import Longs
from batchrec.config import end_of_day
from batchrec.tables.queries import literal, select
from batchrec.tables.schemas import DAY_S

_log = logging.getLogger(__name__)


def ahead_from(run_date: date | None = None) -> int:
    """Return the time, in Unix seconds, from which on events count as ahead of now.

    It is the end of the run date. Without a run date it is a day from now: clocks and time zones differ by less.
    """
    return int(time.time()) + DAY_S if run_date is None else end_of_day(run_date)


def log_end(con: duckdb.DuckDBPyConnection, sequences: Path, ahead: int) -> int:
    """Return the time before which the events of a sequences table count, in Unix seconds.

    It is `ahead`, the result of `ahead_from`. If all events are later than that, all of them count.
    """
    oldest, newest = select(con, "tables/log_span", path=literal(sequences)).fetchall()[0]
    return ahead if oldest is None or oldest < ahead else int(newest) + 1


@dataclass
class EventsAhead:
    """Counts of the events that are ahead of now.

    until: the time from which on events are, in Unix seconds. example: text of the latest such event; None without any.
    """

    until: int
    n_events: int = 0
    latest: int = 0
    example: str | None = None

    def count(self, moments: Longs, user_ids: pa.Array, item_ids: pa.Array) -> int:
        """Count the events that are ahead, and return how many are; moments: (n,) Unix seconds, like the ids."""
        n_ahead = int(np.count_nonzero(moments >= self.until))
        if n_ahead:
            row = int(moments.argmax())
            if self.example is None or moments[row] > self.latest:
                self.latest = int(moments[row])
                self.example = f"user {user_ids[row]}, item {item_ids[row]}, {iso_time(self.latest)}"
            self.n_events += n_ahead
        return n_ahead

    def add(self, other: "EventsAhead") -> None:
        """Add the counts of other events."""
        if other.example is not None and (self.example is None or other.latest > self.latest):
            self.latest, self.example = other.latest, other.example
        self.n_events += other.n_events

    def warn(self, where: str, consequence: str) -> None:
        """Log how many events are ahead, an example and the consequence. Without such events log nothing."""
        if self.n_events:
            _log.warning(
                "%s: %d event(s) lie in the future, like %s: %s", where, self.n_events, self.example, consequence
            )


def iso_time(moment: int) -> str:
    """Return Unix seconds as an ISO time in UTC, or as seconds if the calendar does not reach that far."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{moment} s"
