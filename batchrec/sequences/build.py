"""build-sequences: write time-ordered histories, one row per user, from raw events."""

import csv
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from batchrec.config import SequencesConfig
from batchrec.config.arguments import as_sources, checked
from batchrec.errors import ConfigError, InputError
from batchrec.sequences.events import LoadedEvents, load_events
from batchrec.sequences.filters import HistoryEvents, remembers_left_out
from batchrec.sequences.histories import Written, histories
from batchrec.sources import Reject, describe_error, find_files, local_path_of, split_tables
from batchrec.system.atomic import check_output_file, replacing
from batchrec.system.urls import is_url
from batchrec.tables.log_end import EventsAhead, ahead_from
from batchrec.tables.parquet import write_parquet
from batchrec.tables.queries import connect, is_disk_full, materialize, rows_of, select
from batchrec.tables.report_table import ReportTable
from batchrec.tables.schemas import WEIGHED_COLUMNS, id_type, sequences_schema

# Events that are assembled and written at a time; they become one row group of the output.
BATCH_EVENTS = 1 << 20


@dataclass(frozen=True)
class SequencesReport(ReportTable):
    """The counts of what was read and written: rows read = events + rejected + left out + duplicates folded.

    users: rows of the table. users_without_history: users whose events were all left out by filters. *_history: number
    of events per history, over the users who have one. also_seen: items of left-out events that count as seen.
    disliked: items that users dislike. oldest, newest: times of events, UTC; newest ignores events more than a day
    ahead of now, unless all are. ahead_of_now: how many are.
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
    disliked: int
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


@dataclass(frozen=True)
class Built:
    """A sequences table that is written, and the counts of its events. left_out: events by filter."""

    loaded: LoadedEvents
    left_out: dict[str, int]
    n_items: int
    schema: pa.Schema
    written: Written


class Builder(Protocol):
    """Writes the sequences table of a log: the DuckDB of this process, or the workers of an engine."""

    def __call__(
        self, con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig, out: Path
    ) -> Built:
        """Write the table `out`. Raises as `build_sequences`."""


@checked
def build_sequences(
    ratings: Sequence[str | Path] | str | Path,
    config: SequencesConfig = SequencesConfig(),
    out: Path | str = Path("sequences.parquet"),
    builder: Builder | None = None,
) -> SequencesReport:
    """Write each user's events in time order to the sequences table `out`.

    ratings: one or more files, folders, globs and URLs of CSV, JSON lines and Parquet, and URLs of tables; ignored if
    `config.query` is set. builder: of an engine; None builds with the DuckDB of this process.
    Raises InputError if the input cannot be read, has more unusable rows than allowed or leaves no event;
    ConfigError if a query fails or `out` cannot be written; StoreError if a store fails. After an error `out` is as it
    was.
    """
    started = time.monotonic()
    sources, out = as_sources(ratings, "ratings"), Path(out)
    if builder is None and config.engine != "local":
        name = config.engine
        raise ConfigError(
            f"--engine {name}: no engine is given. Pass builder=batchrec.engines.sequences_builder({name!r})"
        )
    inputs = _input_files(sources, config)
    check_output_file(out, inputs)
    check_output_file(rejects_of(out), inputs, kind=None)
    where = where_of(sources, config)
    with connect(out.parent, config.memory_limit, config.threads, is_alone=config.query is not None) as con:
        try:
            built = (builder or build_here)(con, sources, config, out)
            loaded, left_out, written = built.loaded, built.left_out, built.written
            rejected = dict(Counter(reject.reason for reject in loaded.rejects))
            counts = _summary(con, written, built.n_items)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            if is_disk_full(error):
                raise
            raise InputError(f"{where}: {describe_error(error)}") from error
    written.ahead.warn(where, "they are kept in the histories, but never count as the end of the log")
    return SequencesReport(
        out=str(out),
        rows_read=loaded.n_rows,
        rejected=rejected,
        rejects_file=_write_rejects(loaded.rejects, rejects_of(out)),
        left_out=left_out,
        duplicates_folded=loaded.n_rows - len(loaded.rejects) - sum(left_out.values()) - counts["events"],
        user_id_type=str(built.schema.field("user_id").type),
        item_id_type=str(built.schema.field("item_ids").type.value_type),
        also_seen=written.n_also_seen,
        disliked=written.n_disliked,
        ahead_of_now=written.ahead.n_events,
        seconds=round(time.monotonic() - started, 3),
        **counts,
    )


def _input_files(ratings: Sequence[str], config: SequencesConfig) -> list[str]:
    """Return the local files of the log, which no output may replace."""
    if config.query is not None:
        return [config.query]
    if not ratings:
        raise ConfigError("ratings: found none; expected files, folders, globs or URLs")
    files, tables = split_tables(ratings)
    local_files = find_files([path for path in files if not is_url(path)], "--ratings")
    return [*map(str, local_files), *map(local_path_of, tables)]


def where_of(ratings: Sequence[str], config: SequencesConfig) -> str:
    """Return the log's place for messages: the paths, or the query."""
    return ", ".join(ratings) if config.query is None else config.query


def rejects_of(out: Path) -> Path:
    """Return the path of the file, next to a sequences table, that lists the rows that could not be used."""
    return out.with_suffix(".rejects.csv")


def build_here(con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig, out: Path) -> Built:
    """Write the sequences table with the DuckDB of this process. Raises as `build_sequences`."""
    loaded = load_events(con, ratings, config)
    events, by_weight = _history_events(con, config)
    events.fold()
    left_out = left_out_of(loaded, by_weight + events.filter())
    n_items = select(con, "sequences/history_items").fetchall()[0][0]
    check_not_empty(n_items, loaded, left_out, where_of(ratings, config))
    rows = ordered_events(con, config)
    columns = rows.limit(0).to_arrow_table().schema
    user_type, item_type = (id_type(columns.field(name).type, name, "events") for name in ("user_id", "item_id"))
    schema = sequences_schema(user_type, item_type, WEIGHED_COLUMNS if config.weighs_events else ())
    written = Written(EventsAhead(ahead_from()))
    write_parquet(histories(rows.to_arrow_reader(BATCH_EVENTS), schema, config.repeats, written), schema, out)
    return Built(loaded, left_out, n_items, schema, written)


def _history_events(con: duckdb.DuckDBPyConnection, config: SequencesConfig) -> tuple[HistoryEvents, Counter[str]]:
    """Open the loaded events that may belong in a history, and count those that their weights leave out."""
    if not config.weighs_events:
        select(con, "sequences/history_events", remember=remembers_left_out(config)).create_view("history_events")
        return HistoryEvents(con, config, "loaded_events"), Counter()
    materialize(con, "sequences/weighed_events")
    con.execute("drop table loaded_events")
    n_disliked, n_of_weight_0 = select(con, "sequences/events_without_weight").fetchall()[0]
    con.table("weighed_events").create_view("history_events")
    counts = Counter({"disliked items": n_disliked, "weight 0": n_of_weight_0})
    return HistoryEvents(con, config, "weighed_events"), counts


def left_out_of(loaded: LoadedEvents, others: Counter[str]) -> dict[str, int]:
    """Return how many events are left out for each reason, without reasons of none; others: those of later filters."""
    counts = Counter({"before --since": loaded.n_before_since, "below --min-rating": loaded.n_below_min_rating})
    counts += others
    return dict(counts)


def check_not_empty(n_items: int, loaded: LoadedEvents, left_out: dict[str, int], where: str) -> None:
    """Raise InputError if no event is left for a history."""
    if not n_items:
        reasons = dict(Counter(reject.reason for reject in loaded.rejects)) | left_out
        texts = [f"{number} ({reason})" for reason, number in reasons.items() if number]
        advice = "" if loaded.n_rows else ". Export the log again, each event on a line of its own below the header"
        raise InputError(
            f"{where}: no event is left: of {loaded.n_rows} rows, {', '.join(texts) or 'none'} are left out{advice}"
        )


def ordered_events(con: duckdb.DuckDBPyConnection, config: SequencesConfig) -> duckdb.DuckDBPyRelation:
    """Return the events of the view history_events in the order of the histories, as `histories` takes them."""
    if config.weighs_events:
        return select(con, "sequences/ordered_weighed_events")
    events = select(con, "sequences/ordered_events")
    return events if remembers_left_out(config) else events.select("user_id", "item_id", "moment")


def _summary(con: duckdb.DuckDBPyConnection, written: Written, n_items: int) -> dict[str, Any]:
    """Return the fields of the report that sql/sequences/history_summary.sql computes."""
    con.from_arrow(pa.table({"n_events": pa.chunked_array(written.lengths)})).create_view("histories")
    oldest = min(written.moments)
    return rows_of(con, "sequences/history_summary", n_items=n_items, oldest=oldest, newest=written.newest)[0]


def _write_rejects(rejects: list[Reject], out: Path) -> str | None:
    if not rejects:
        # Rejects of an earlier run would be taken for those of this one.
        out.unlink(missing_ok=True)
        return None
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "line", "reason", "value"])
        writer.writerows([reject.file, reject.line, reject.reason, reject.value] for reject in rejects)
    return str(out)
