"""build-sequences: time-ordered histories, one row a user, from raw events."""

import csv
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.events import LoadedEvents, load_events
from batchrec.queries import connect, materialize, select
from batchrec.schemas import id_type, sequences_schema
from batchrec.sources import Reject
from batchrec.tables import check_writable_file, replacing, write_parquet

# Events assembled and written at a time; a row group of the output.
_BATCH_EVENTS = 1 << 20


@dataclass(frozen=True)
class SequencesReport:
    """What was read and written: rows read = events + rejected + left out + duplicates folded.

    *_history: events in a history, over all users; oldest, newest: times of events, UTC.
    """

    out: str
    rows_read: int
    rejected: dict[str, int]
    rejects_file: str | None
    left_out: dict[str, int]
    duplicates_folded: int
    events: int
    users: int
    items: int
    user_id_type: str
    item_id_type: str
    shortest_history: int
    median_history: float
    mean_history: float
    percentile_99_history: int
    longest_history: int
    oldest: str
    newest: str
    seconds: float


def build_sequences(
    ratings: Sequence[str], config: SequencesConfig = SequencesConfig(), out: Path = Path("sequences.parquet")
) -> SequencesReport:
    """Write each user's events in time order to the sequences table `out`.

    ratings: files, folders and globs of CSV and Parquet; not looked at where `config.query` is given.
    Raises InputError for input that cannot be read, has more unusable rows than allowed or leaves no event, ConfigError
    for a query that does not run or an `out` that cannot be written. Then `out` stays as it was.
    """
    started = time.monotonic()
    check_writable_file(out)
    rejects_file = out.with_suffix(".rejects.csv")
    check_writable_file(rejects_file)
    where = ", ".join(ratings) if config.query is None else config.query
    with connect(out.parent, config.memory_limit, config.threads) as con:
        try:
            loaded = load_events(con, ratings, config)
            rejected = dict(Counter(reject.reason for reject in loaded.rejects))
            left_out, n_folded = _fold(con, loaded, config)
            summary = select(con, "history_summary")
            counts = dict(zip(summary.columns, summary.fetchall()[0], strict=True))
            if not counts["users"]:
                raise InputError(
                    f"{where}: no event is left: of {loaded.n_rows} rows, {rejected | left_out or 'none'} left out"
                )
            events = select(con, "ordered_events")
            user_type, item_type, _ = (field.type for field in events.limit(0).to_arrow_table().schema)
            schema = sequences_schema(id_type(user_type, "user_id", "events"), id_type(item_type, "item_id", "events"))
            write_parquet(_histories(events.to_arrow_reader(_BATCH_EVENTS), schema), schema, out)
        except (duckdb.OutOfMemoryException, duckdb.InternalException):
            raise
        except duckdb.Error as error:
            raise InputError(f"{where}: {error}") from error
    return SequencesReport(
        out=str(out),
        rows_read=loaded.n_rows,
        rejected=rejected,
        rejects_file=_write_rejects(loaded.rejects, rejects_file),
        left_out=left_out,
        duplicates_folded=n_folded,
        user_id_type=str(schema.field("user_id").type),
        item_id_type=str(schema.field("item_ids").type.value_type),
        seconds=round(time.monotonic() - started, 3),
        **counts,
    )


def _fold(con: duckdb.DuckDBPyConnection, loaded: LoadedEvents, config: SequencesConfig) -> tuple[dict[str, int], int]:
    """Make the table history_events; count what filters left out, by filter, and the repeats that were folded."""
    materialize(con, "history_events", repeats=config.repeats)
    con.execute("drop table loaded_events")
    n_events = len(con.table("history_events"))
    n_folded = loaded.n_rows - len(loaded.rejects) - loaded.n_below_min_rating - n_events
    left_out = {"below --min-rating": loaded.n_below_min_rating}
    for name, least in (("item", config.min_item_events), ("user", config.min_user_events)):
        if least > 1:
            materialize(con, f"frequent_{name}s", **{f"min_{name}_events": least})
            con.execute(f"drop table history_events; alter table frequent_{name}s rename to history_events")
            n_left = len(con.table("history_events"))
            left_out[f"below --min-{name}-events"] = n_events - n_left
            n_events = n_left
    return {reason: n for reason, n in left_out.items() if n}, n_folded


def _histories(events: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Gather events that stand in the order of the histories into one row a user.

    events: user_id, item_id, moment; the events of a user stand together, maybe in several batches.
    """
    rest: list[pa.RecordBatch] = []
    for batch in events:
        ends = pc.run_end_encode(batch["user_id"]).run_ends
        if len(ends) == 1 and (not rest or rest[0]["user_id"][0] == batch["user_id"][0]):
            rest.append(batch)
            continue
        table = pa.concat_batches([*rest, batch])
        last_user_starts = table.num_rows - (batch.num_rows - (ends[-2].as_py() if len(ends) > 1 else 0))
        yield _history_batch(table.slice(0, last_user_starts), schema)
        rest = [table.slice(last_user_starts)]
    yield _history_batch(pa.concat_batches(rest), schema)


def _history_batch(events: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    users = pc.run_end_encode(events["user_id"])
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), users.run_ends])
    item_ids = events["item_id"].cast(schema.field("item_ids").type.value_type)
    seconds = events["moment"].to_numpy() // 1_000_000
    return pa.record_batch(
        [
            users.values.cast(schema.field("user_id").type),
            pa.ListArray.from_arrays(offsets, item_ids),
            pa.ListArray.from_arrays(offsets, pa.array(seconds)),
        ],
        schema=schema,
    )


def _write_rejects(rejects: list[Reject], out: Path) -> str | None:
    if not rejects:
        # Rejects of an earlier run would pass for those of this one.
        out.unlink(missing_ok=True)
        return None
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "line", "reason", "value"])
        writer.writerows([reject.file, reject.line, reject.reason, reject.value] for reject in rejects)
    return str(out)
