"""Where a log ends. An event that is ahead of its time, like one of 9999-12-31, is never the end of anything."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from batchrec.arrays import Longs
from batchrec.config import end_of
from batchrec.tables.queries import literal, select

_log = logging.getLogger(__name__)

_DAY_S = 86_400


def ahead_from(run_date: date | None = None) -> int:
    """Return the moment, in Unix seconds, from which on events are ahead of their time.

    It is the end of the run date; without one, a day from now, since clocks and time zones differ by less.
    """
    return int(time.time()) + _DAY_S if run_date is None else end_of(run_date)


def log_end(con: duckdb.DuckDBPyConnection, sequences: Path, ahead: int) -> int:
    """Return the moment before which the events of a sequences table count: `ahead`, as `ahead_from` has it.

    A log that lies wholly beyond that counts as it stands, up to its newest event.
    """
    oldest, newest = select(con, "tables/log_span", path=literal(sequences)).fetchall()[0]
    return ahead if oldest is None or oldest < ahead else int(newest) + 1


@dataclass
class EventsAhead:
    """Account of the events that are ahead of their time.

    until: the moment from which on they are, in seconds. example: the latest of them in words, None without any.
    """

    until: int
    n_events: int = 0
    latest: int = 0
    example: str | None = None

    def count(self, moments: Longs, user_ids: pa.Array, item_ids: pa.Array) -> int:
        """Count the events whose moments, in seconds, are ahead; all of one length. Returns how many of these are."""
        n_ahead = int(np.count_nonzero(moments >= self.until))
        if n_ahead:
            row = int(moments.argmax())
            if self.example is None or moments[row] > self.latest:
                self.latest = int(moments[row])
                self.example = f"user {user_ids[row]}, item {item_ids[row]}, {iso_time(self.latest)}"
            self.n_events += n_ahead
        return n_ahead

    def warn(self, where: str, what: str) -> None:
        """Say in the log how many events are ahead, one of them, and what becomes of them; nothing without any."""
        if self.n_events:
            _log.warning("%s: %d event(s) lie in the future, like %s: %s", where, self.n_events, self.example, what)


def iso_time(moment: int) -> str:
    """Spell Unix seconds as an ISO time, UTC, if the calendar reaches that far."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{moment} s"
