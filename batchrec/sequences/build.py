"""build-sequences: time-ordered histories, one row a user, from raw events."""

import csv
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.sequences.events import LoadedEvents, load_events
from batchrec.sequences.histories import Written, histories
from batchrec.sources import Reject, describe, find_files
from batchrec.system.atomic import check_no_input, check_writable_file, replacing
from batchrec.tables.log_end import EventsAhead, ahead_from
from batchrec.tables.parquet import write_parquet
from batchrec.tables.queries import connect, is_disk_full, materialize, select, table_of
from batchrec.tables.schemas import id_type, sequences_schema

# Events assembled and written at a time; a row group of the output.
_BATCH_EVENTS = 1 << 20


@dataclass(frozen=True)
class SequencesReport:
    """What was read and written: rows read = events + rejected + left out + duplicates folded.

    users: rows of the table; users_without_history: those of them of whom filters have left no event. *_history: events
    in a history, over the others. also_seen: items of users that filters left out, and that count as seen. oldest,
    newest: times of events, UTC; newest is that of an event ahead of now, by more than a day, only if all are;
    ahead_of_now counts them.
    """

    out: str
    rows_read: int
    rejected: dict[str, int]
    rejects_file: str | None
    left_out: dict[str, int]
    duplicates_folded: int
    events: int
    users: int
    users_without_history: int
    items: int
    also_seen: int
    user_id_type: str
    item_id_type: str
    shortest_history: int
    median_history: float
    mean_history: float
    percentile_99_history: int
    longest_history: int
    oldest: str
    newest: str
    ahead_of_now: int
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
            n_items = select(con, "sequences/history_items").fetchall()[0][0]
            if not n_items:
                raise InputError(
                    f"{where}: no event is left: of {loaded.n_rows} rows, {rejected | left_out or 'none'} left out"
                )
            events = select(con, "sequences/ordered_events")
            if not _leaves_out_seen(config):
                events = events.select("user_id", "item_id", "moment")
            found = events.limit(0).to_arrow_table().schema
            user_type, item_type = (id_type(found.field(name).type, name, "events") for name in ("user_id", "item_id"))
            schema = sequences_schema(user_type, item_type)
            written = Written(EventsAhead(ahead_from()))
            batches = events.to_arrow_reader(_BATCH_EVENTS)
            write_parquet(histories(batches, schema, config.repeats, written), schema, out)
            con.from_arrow(pa.table({"n_events": pa.chunked_array(written.lengths)})).create_view("histories")
            oldest = min(written.moments)
            summary = select(con, "sequences/history_summary", n_items=n_items, oldest=oldest, newest=written.newest)
            counts = dict(zip(summary.columns, summary.fetchall()[0], strict=True))
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            if is_disk_full(error):
                raise
            raise InputError(f"{where}: {describe(error)}") from error
    written.ahead.warn(where, "they stand in the histories, and are never the end of the log")
    return SequencesReport(
        out=str(out),
        rows_read=loaded.n_rows,
        rejected=rejected,
        rejects_file=_write_rejects(loaded.rejects, rejects_file),
        left_out=left_out,
        duplicates_folded=loaded.n_rows - len(loaded.rejects) - sum(left_out.values()) - counts["events"],
        user_id_type=str(schema.field("user_id").type),
        item_id_type=str(schema.field("item_ids").type.value_type),
        also_seen=written.n_also_seen,
        ahead_of_now=written.ahead.n_events,
        seconds=round(time.monotonic() - started, 3),
        **counts,
    )


def rejects_of(out: Path) -> Path:
    """Name the file, beside a sequences table, of the rows that could not be used."""
    return out.with_suffix(".rejects.csv")


def _leaves_out_seen(config: SequencesConfig) -> bool:
    """Tell whether a filter may leave events out whose items count as seen all the same."""
    return config.seen == "all" and (config.min_rating is not None or config.min_item_events > 1)


def _filter(con: duckdb.DuckDBPyConnection, loaded: LoadedEvents, config: SequencesConfig) -> dict[str, int]:
    """Make the view history_events; count what filters left out, by filter."""
    left_out = {"below --min-rating": loaded.n_below_min_rating}
    remember = _leaves_out_seen(config)
    table = "loaded_events"
    select(con, "sequences/history_events", remember=remember).create_view("history_events")

    def n_kept() -> int:
        n_events: int = select(con, "sequences/kept_events").fetchall()[0][0]
        return n_events

    def replace(query: str, **values: object) -> int:
        """Run a query over history_events and let it show the result; count the events that are fewer."""
        nonlocal table
        n_events = n_kept()
        materialize(con, query, **values)
        con.table(table_of(query)).create_view("history_events")
        con.execute(f"drop table {table}")
        table = table_of(query)
        return n_events - n_kept()

    if config.repeats != "all" and max(config.min_item_events, config.min_user_events) > 1:
        # The filters count events without repeats; where there are none, repeats go as the histories are written.
        replace("sequences/folded_events", repeats=config.repeats)
    if config.min_item_events > 1:
        n_events = replace("sequences/frequent_items", min_item_events=config.min_item_events, remember=remember)
        left_out["below --min-item-events"] = n_events
    if config.min_user_events > 1:
        n_events = replace("sequences/frequent_users", min_user_events=config.min_user_events)
        left_out["below --min-user-events"] = n_events
    return {reason: n for reason, n in left_out.items() if n}


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
