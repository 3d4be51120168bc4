"""Small logs with times, and their splits by `splits.split_sequences`."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from batchrec.config import EvaluationConfig
from batchrec.evaluation.splits import LogSplit, split_sequences
from batchrec.tables.queries import connect
from batchrec.tables.schemas import lists_schema
from batchrec.tables.sequences_table import open_sequences
from tests.support.models import Id, training_histories

# A user's events, oldest first: item and time.
Events = Sequence[tuple[Any, int]]
Log = Mapping[Any, Events]


def write_log(path: Path, log: Log) -> Path:
    def type_of(values: list[Id]) -> pa.DataType:
        return pa.string() if any(isinstance(value, str) for value in values) else pa.int64()

    items = [[item for item, _ in events] for events in log.values()]
    times = [[moment for _, moment in events] for events in log.values()]
    table = {
        "user_id": pa.array(list(log), type_of(list(log))),
        "item_ids": pa.array(items, pa.list_(type_of([item for history in items for item in history]))),
        "timestamps": pa.array(times, pa.list_(pa.int64())),
    }
    pq.write_table(pa.table(table), path)
    return path


@dataclass(frozen=True)
class SplitLog:
    """A split, and the database that holds its tables."""

    con: duckdb.DuckDBPyConnection
    parts: LogSplit
    lists_schema: pa.Schema

    def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        return self.con.table(table).select(columns).fetchall()


@contextmanager
def split_log(log: Log, config: EvaluationConfig, seed: int = 0) -> Iterator[SplitLog]:
    with tempfile.TemporaryDirectory() as folder, connect() as con:
        sequences = open_sequences(write_log(Path(folder, "log.parquet"), log))
        parts = split_sequences(con, sequences, config, seed, Path(folder))
        yield SplitLog(con, parts, lists_schema(sequences.user_type, sequences.item_type))


def logs(min_users: int = 2) -> st.SearchStrategy[dict[str, list[tuple[str, int]]]]:
    """Return a strategy for logs of few users, items and times, so that these repeat; two more users can be tested."""
    events = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9)), max_size=9)
    ordered = events.map(lambda found: sorted(found, key=lambda event: event[1]))
    users = st.lists(ordered, min_size=min_users, max_size=8)
    # Whatever the other users are, these can be tested by either protocol and any cut from 1 to 9.
    testable = {"y": [("a", 0), ("b", 0), ("i", 9)], "z": [("a", 0), ("c", 0), ("b", 9)]}
    return users.map(lambda found: {f"u{number}": history for number, history in enumerate(found)} | testable)


SPREAD_END = 1_700_000_000
SPREAD_CUT = SPREAD_END + 1 - 960 * 86_400


def spread_log() -> dict[int, list[tuple[int, int]]]:
    """Return training_histories with one or two late events each: items are held out from SPREAD_CUT on.

    Nobody has the item 1040 before the cut.
    """
    log = {}
    for user, history in training_histories().items():
        n_late = 1 + (len(history) > 8)
        items = [*history[:-1], 1040] if n_late == 2 else history
        times = [SPREAD_END - 2000 * 86_400 + place for place in range(len(items) - n_late)]
        log[user] = list(zip(items, times + [SPREAD_END] * n_late, strict=True))
    return log
