"""build-sequences: time-ordered histories, one row a user, from raw events."""

import csv
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.batching import Longs
from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.events import LoadedEvents, load_events
from batchrec.queries import connect, is_disk_full, materialize, select
from batchrec.schemas import id_type, sequences_schema
from batchrec.sources import Reject, describe, find_files
from batchrec.tables import check_no_input, check_writable_file, replacing, write_parquet

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


@dataclass
class _Written:
    """Account of the histories that were written: their lengths, and the oldest and newest moment of each batch."""

    lengths: list[pa.Array] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)


def build_sequences(
    ratings: Sequence[str], config: SequencesConfig = SequencesConfig(), out: Path = Path("sequences.parquet")
) -> SequencesReport:
    """Write each user's events in time order to the sequences table `out`.

    ratings: files, folders and globs of CSV and Parquet; not looked at where `config.query` is given.
    Raises InputError for input that cannot be read, has more unusable rows than allowed or leaves no event, ConfigError
    for a query that does not run or an `out` that cannot be written. Then `out` stays as it was.
    """
    started = time.monotonic()
    if config.query is None:
        check_no_input(out, find_files(ratings, "--ratings"))
    check_writable_file(out)
    rejects_file = rejects_of(out)
    check_writable_file(rejects_file)
    where = ", ".join(ratings) if config.query is None else config.query
    with connect(out.parent, config.memory_limit, config.threads) as con:
        try:
            loaded = load_events(con, ratings, config)
            rejected = dict(Counter(reject.reason for reject in loaded.rejects))
            left_out = _filter(con, loaded, config)
            n_items = select(con, "history_items").fetchall()[0][0]
            if not n_items:
                raise InputError(
                    f"{where}: no event is left: of {loaded.n_rows} rows, {rejected | left_out or 'none'} left out"
                )
            events = select(con, "ordered_events")
            user_type, item_type, _ = (column.type for column in events.limit(0).to_arrow_table().schema)
            schema = sequences_schema(id_type(user_type, "user_id", "events"), id_type(item_type, "item_id", "events"))
            written = _Written()
            batches = events.to_arrow_reader(_BATCH_EVENTS)
            write_parquet(_histories(batches, schema, config.repeats, written), schema, out)
            con.from_arrow(pa.table({"n_events": pa.chunked_array(written.lengths)})).create_view("histories")
            oldest, newest = min(written.moments), max(written.moments)
            summary = select(con, "history_summary", n_items=n_items, oldest=oldest, newest=newest)
            counts = dict(zip(summary.columns, summary.fetchall()[0], strict=True))
        except (duckdb.OutOfMemoryException, duckdb.InternalException):
            raise
        except duckdb.Error as error:
            if is_disk_full(error):
                raise
            raise InputError(f"{where}: {describe(error)}") from error
    return SequencesReport(
        out=str(out),
        rows_read=loaded.n_rows,
        rejected=rejected,
        rejects_file=_write_rejects(loaded.rejects, rejects_file),
        left_out=left_out,
        duplicates_folded=loaded.n_rows - len(loaded.rejects) - sum(left_out.values()) - counts["events"],
        user_id_type=str(schema.field("user_id").type),
        item_id_type=str(schema.field("item_ids").type.value_type),
        seconds=round(time.monotonic() - started, 3),
        **counts,
    )


def rejects_of(out: Path) -> Path:
    """Name the file, beside a sequences table, of the rows that could not be used."""
    return out.with_suffix(".rejects.csv")


def _filter(con: duckdb.DuckDBPyConnection, loaded: LoadedEvents, config: SequencesConfig) -> dict[str, int]:
    """Make the view history_events; count what filters left out, by filter."""
    left_out = {"below --min-rating": loaded.n_below_min_rating}
    table = "loaded_events"
    select(con, "history_events").create_view("history_events")

    def replace(query: str, **values: object) -> int:
        """Run a query over history_events and let it show the result; count the events that are fewer."""
        nonlocal table
        n_events = len(con.view("history_events"))
        materialize(con, query, **values)
        con.table(query).create_view("history_events")
        con.execute(f"drop table {table}")
        table = query
        return n_events - len(con.view("history_events"))

    if config.repeats != "all" and max(config.min_item_events, config.min_user_events) > 1:
        # The filters count events without repeats; where there are none, repeats go as the histories are written.
        replace("folded_events", repeats=config.repeats)
    for name, least in (("item", config.min_item_events), ("user", config.min_user_events)):
        if least > 1:
            left_out[f"below --min-{name}-events"] = replace(f"frequent_{name}s", **{f"min_{name}_events": least})
    return {reason: n for reason, n in left_out.items() if n}


def _histories(
    events: Iterable[pa.RecordBatch], schema: pa.Schema, repeats: str, written: _Written
) -> Iterator[pa.RecordBatch]:
    """Gather events that stand in the order of the histories into one row a user, and keep account of the rows.

    events: user_id, item_id, moment; the events of a user stand together, maybe in several batches.
    """
    for whole in _whole_users(events):
        kept = whole if repeats == "all" else _without_repeats(whole, first=repeats == "first")
        users = pc.run_end_encode(kept["user_id"])
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), users.run_ends])
        moments = kept["moment"].to_numpy()
        written.lengths.append(pa.array(np.diff(offsets)))
        written.moments += [int(moments.min()), int(moments.max())]
        columns = [
            users.values.cast(schema.field("user_id").type),
            pa.ListArray.from_arrays(offsets, kept["item_id"].cast(schema.field("item_ids").type.value_type)),
            pa.ListArray.from_arrays(offsets, pa.array(moments // 1_000_000)),
        ]
        yield pa.record_batch(columns, schema=schema)


def _whole_users(events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Regroup the batches so that none ends within a user's events."""
    rest: list[pa.RecordBatch] = []
    for batch in events:
        ends = pc.run_end_encode(batch["user_id"]).run_ends
        if len(ends) == 1 and (not rest or rest[0]["user_id"][0] == batch["user_id"][0]):
            rest.append(batch)
            continue
        table = pa.concat_batches([*rest, batch])
        last_user_starts = table.num_rows - (batch.num_rows - (ends[-2].as_py() if len(ends) > 1 else 0))
        yield table.slice(0, last_user_starts)
        rest = [table.slice(last_user_starts)]
    yield pa.concat_batches(rest)


def _without_repeats(events: pa.RecordBatch, first: bool) -> pa.RecordBatch:
    """Keep the first or the last event of each user with each item."""
    ends = pc.run_end_encode(events["user_id"]).run_ends.to_numpy()
    users = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    items = _item_codes(events["item_id"])
    pairs = users * (int(items.max()) + 1) + items
    # A stable sort gains from the users being in order.
    order = np.argsort(pairs, kind="stable")
    is_new = np.diff(pairs[order]) != 0
    if is_new.all():
        return events
    kept = order[np.append(True, is_new) if first else np.append(is_new, True)]
    return events.take(np.sort(kept))


def _item_codes(item_ids: pa.Array) -> Longs:
    """Give each item a number from 0 to 2^40: by its id, where ids are integers that are close enough."""
    if pa.types.is_integer(item_ids.type):
        ids: Longs = item_ids.to_numpy()
        lowest = int(ids.min())
        if int(ids.max()) - lowest < 1 << 40:
            return ids - lowest
    codes: Longs = item_ids.dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


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
