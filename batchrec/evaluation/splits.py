"""The protocols that split a log into training events, tested users and their test items."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from batchrec.config import EvaluationConfig
from batchrec.errors import ConfigError, InputError
from batchrec.evaluation.given_tables import read_test_pairs
from batchrec.tables.log_end import EventsAhead, ahead_from, iso_time, log_end
from batchrec.tables.parquet import cast_batches, write_parquet
from batchrec.tables.queries import literal, materialize, rows_of, select, table_of
from batchrec.tables.schemas import DAY_S, sequences_schema
from batchrec.tables.sequences_table import OF_EVENTS, Sequences, filter_lists

_USERS_AT_A_TIME = 8192
_DEFAULT_TEST_DAYS = 7.0


@dataclass(frozen=True)
class SplitCounts:
    """The sizes of both parts; users_tested and users_not_tested (by reason) add up to all users of the log.

    unknown_test_items: test items that nobody has in the training part.
    """

    users_tested: int
    users_not_tested: dict[str, int]
    test_items: int
    unknown_test_items: int
    training_users: int
    training_items: int
    training_events: int


@dataclass(frozen=True)
class LogSplit:
    """A split log.

    training, histories: sequences tables of the training part, and of the tested users without their test items.
    cut: the first second of the test, Unix time; None if each user has their own.
    """

    training: Path
    histories: Path
    cut: int | None
    counts: SplitCounts


def split_sequences(
    con: duckdb.DuckDBPyConnection, sequences: Sequences, config: EvaluationConfig, seed: int, folder: Path
) -> LogSplit:
    """Split the log by the protocol; write the two sequences tables into `folder`.

    Events in the future are in neither part. The columns also_seen and disliked are ignored, because they have no
    times, and every event counts as seen. The weights of events stay. Creates the tables split, tested_users,
    test_items, training_events, training_items and user_items (sql/evaluation/).
    Raises InputError if nobody can be tested, there is too little to train on, the cut is outside the log, or --split
    contradicts the log; ConfigError if the training part has fewer items than a list.
    """
    checked = folder / "sequences.parquet"
    ahead = EventsAhead(log_end(con, sequences.path, ahead_from()))
    # One pass checks each row, so that a later failure is not the fault of the input.
    write_parquet(_without_future_events(sequences.batches(_USERS_AT_A_TIME), ahead), sequences.schema, checked)
    ahead.warn(str(sequences.path), "they are neither trained nor tested on")
    cut = _split(con, sequences, checked, config)
    materialize(con, "evaluation/tested_users", most=config.test_users, seed=seed)
    not_tested = dict(select(con, "evaluation/users_not_tested").fetchall())
    n_tested = len(con.table("tested_users"))
    if not n_tested:
        reasons = ", ".join(f"{n} ({reason})" for reason, n in not_tested.items())
        raise InputError(f"{sequences.path}: no user can be tested; of {sequences.n_users} users: {reasons}")
    materialize(con, "evaluation/test_items", keep_seen=config.keep_seen, is_next_only=config.is_next_only)
    for name in ("evaluation/training_events", "evaluation/training_items", "evaluation/user_items"):
        materialize(con, name)
    (sizes,) = rows_of(con, "evaluation/split_summary")
    counts = SplitCounts(users_tested=n_tested, users_not_tested=not_tested, **sizes)
    _check_training_part(counts, sequences.path, config.top_k)
    weighed = {"weights"} & set(sequences.schema.names)
    schema = sequences_schema(sequences.user_type, sequences.item_type, weighed)
    return LogSplit(
        training=_write(con, "evaluation/training_sequences", schema, folder),
        histories=_write(con, "evaluation/tested_histories", schema, folder),
        cut=cut,
        counts=counts,
    )


def _without_future_events(batches: Iterator[pa.RecordBatch], ahead: EventsAhead) -> Iterator[pa.RecordBatch]:
    """Leave out and count the events in the future: the last ones of a history."""
    for batch in batches:
        items, times = batch["item_ids"], batch["timestamps"]
        moments, lengths = times.flatten().to_numpy(), times.value_lengths().to_numpy()
        user_ids = batch["user_id"].take(pa.array(np.repeat(np.arange(len(batch)), lengths)))
        if not ahead.count(moments, user_ids, items.flatten()):
            yield batch
        else:
            is_kept = moments < ahead.until
            columns = [
                filter_lists(batch[name], is_kept) if name in OF_EVENTS else batch[name] for name in batch.schema.names
            ]
            yield pa.record_batch(columns, schema=batch.schema)


def _split(con: duckdb.DuckDBPyConnection, sequences: Sequences, checked: Path, config: EvaluationConfig) -> int | None:
    """Create the table split by the protocol, and return the cut."""
    log: dict[str, Any] = {"path": literal(checked), "keep_seen": config.keep_seen}
    if config.protocol == "temporal":
        cut = _cut(con, sequences.path, checked, config)
        select(con, "evaluation/temporal", cut=cut, **log).create("split")
        return cut
    if config.split is not None:
        read_test_pairs(con, config.split, sequences, checked)
        select(con, "evaluation/listed_split", **log).create("split")
        con.execute("drop table test_pairs")
    else:
        select(con, "evaluation/leave_one_out", **log).create("split")
    return None


def _cut(con: duckdb.DuckDBPyConnection, path: Path, checked: Path, config: EvaluationConfig) -> int:
    """Return the first second of the test. Raises InputError if no event is before it, or none from then on."""
    oldest, newest = select(con, "tables/log_span", path=literal(checked)).fetchall()[0]
    if newest is None:
        raise InputError(f"{path}: no history holds an event")
    span = f"{path}: the log runs from {iso_time(oldest)} to {iso_time(newest)}"
    if config.cut_time is not None:
        if not oldest < config.cut_time <= newest:
            raise InputError(f"{span}; --cut {config.cut} is not within it")
        return config.cut_time
    days = config.test_days or _DEFAULT_TEST_DAYS
    # Plus one second: the last day of a log with daily timestamps is one midnight, not two.
    cut = int(newest - round(days * DAY_S) + 1)
    if cut <= oldest:
        raise InputError(f"{span}, all of it within the last {days:g} days. Pass fewer --test-days")
    return cut


def _check_training_part(counts: SplitCounts, path: Path, top_k: int) -> None:
    if counts.training_users < 2:
        raise InputError(f"{path}: {counts.training_users} user(s) in the training part; expected two or more")
    if top_k > counts.training_items:
        n_items = counts.training_items
        raise ConfigError(f"--top-k {top_k}: the training part holds {n_items} items. Pass {n_items} or less")


def _write(con: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, folder: Path) -> Path:
    out = folder / f"{table_of(name)}.parquet"
    write_parquet(cast_batches(select(con, name), schema, _USERS_AT_A_TIME), schema, out)
    return out
