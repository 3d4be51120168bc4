"""Functions that the workers of Spark run on a range of users: they count its items, and assemble its histories."""

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from batchrec.config import SequencesConfig
from batchrec.engines.shipping import to_bytes
from batchrec.sequences.build import ordered_events
from batchrec.sequences.filters import HistoryEvents
from batchrec.sequences.histories import Written, histories
from batchrec.tables.log_end import EventsAhead
from batchrec.tables.queries import connect, select

# Events per batch, which is one row of Spark and one row group of the table.
_BATCH_EVENTS = 1 << 18

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class RangeSummary:
    """The counts of a range of users. items: the distinct items of its histories. left_out: events by filter."""

    items: pa.Array
    left_out: Counter[str]
    written: Written


@dataclass(frozen=True)
class UserRanges:
    """Functions of mapInArrow over ranges of users: all events of a user are in one range.

    ahead: time from which events are ahead of now. counts: broadcast counts of the frequent items, if they are needed.
    """

    config: SequencesConfig
    schema: pa.Schema
    ahead: int
    counts: Any = None

    def with_counts(self, counts: Any) -> "UserRanges":
        """Return the functions with the counts of the items in all ranges: a broadcast table of item_id, n_events."""
        return replace(self, counts=counts)

    def item_counts(self, batches: Batches) -> Batches:
        """Yield the number of events of each item of a range."""
        with self._opened(batches) as (con, _):
            yield from select(con, "sequences/item_counts").to_arrow_reader(_BATCH_EVENTS)

    def histories(self, batches: Batches) -> Batches:
        """Yield the histories of a range, a batch per row, and its RangeSummary as the last row."""
        with self._opened(batches) as (con, events):
            left_out = events.filter(None if self.counts is None else self.counts.value)
            items = select(con, "sequences/item_counts").to_arrow_table()["item_id"].combine_chunks()
            rows = ordered_events(con, self.config)
            written = Written(EventsAhead(self.ahead))
            if rows.limit(1).fetchall():
                ordered = rows.to_arrow_reader(_BATCH_EVENTS)
                for batch in histories(ordered, self.schema, self.config.repeats, written):
                    yield _row(False, to_bytes(batch))
            yield _row(True, pickle.dumps(RangeSummary(items, left_out, written)))

    @contextmanager
    def _opened(self, batches: Batches) -> Iterator[tuple[duckdb.DuckDBPyConnection, HistoryEvents]]:
        """Open the events of a range as the view history_events, repeats folded."""
        with connect(memory_limit=self.config.memory_limit, threads=1) as con:
            columns = pa.schema(
                [
                    ("user_id", self.schema.field("user_id").type),
                    ("item_id", self.schema.field("item_ids").type.value_type),
                    ("moment", pa.int64()),
                    ("left_out", pa.bool_()),
                ]
            )
            reader = pa.RecordBatchReader.from_batches(columns, (batch.cast(columns) for batch in batches))
            con.from_arrow(reader).create("range_events")
            con.table("range_events").create_view("history_events")
            events = HistoryEvents(con, self.config, "range_events")
            events.fold()
            yield con, events


def _row(is_summary: bool, content: bytes) -> pa.RecordBatch:
    return pa.record_batch({"is_summary": [is_summary], "content": pa.array([content], pa.binary())})
