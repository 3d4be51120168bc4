"""Load raw events into DuckDB with their types, and count the rows that cannot be used."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.sequences.event_times import TimesOfKind, problem_of, times_of, unit_needed, warnings_of
from batchrec.sequences.id_types import FLOATS, IdTypes, mixed_types
from batchrec.sequences.reject_texts import advice_on, shown_value
from batchrec.sequences.since import first_moment, needed_files, rows_of_tables
from batchrec.sources import (
    MergedRecord,
    Reject,
    Source,
    check_no_record_lost,
    contains_quote,
    fetch,
    has_quoted_fields,
    line_numbers,
    list_files,
    malformed_records,
    merged_records,
    open_query,
    open_sources,
    open_tables,
    partitions_of,
    shown_files,
    split_tables,
    unite,
)
from batchrec.tables.ids import BLANKS, WHOLE_NUMBER, null_pattern
from batchrec.tables.queries import materialize, select, table_of

_log = logging.getLogger(__name__)

# Programs that hold a 64-bit id as a float write it like this: 1.2345678901234568e+18.
_LOST_DIGITS = r"^\s*-?[0-9](\.[0-9]+)?[eE]\+[0-9]+\s*$"

_ROLES = ("user_column", "item_column", "timestamp_column", "rating_column")


@dataclass(frozen=True)
class LoadedEvents:
    """How many rows were read, and which of them are not events of a history."""

    n_rows: int
    n_before_since: int
    n_below_min_rating: int
    rejects: list[Reject]


@dataclass(frozen=True)
class _Log:
    """The log as it is read: the column of each role, and the sources that have these columns."""

    user: str
    item: str
    timestamp: str
    rating: str | None
    sources: list[Source]
    config: SequencesConfig

    @property
    def columns(self) -> list[str]:
        # If no rating is needed, the time column takes its place and is ignored.
        return [self.user, self.item, self.timestamp, self.rating or self.timestamp]

    def lines(self, file: str, records: Sequence[tuple[str | None, ...]]) -> list[int | None]:
        """Return the lines of records of a file, matched by their values; None if they are not lines of text."""
        source, opened = next(((s, f) for s in self.sources for f in s.files if str(f) == file), (None, None))
        if source is None or opened is None or source.layout is None or not source.is_untyped:
            return [None] * len(records)
        return line_numbers(opened, source.layout, records, self.columns)


def load_events(con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig) -> LoadedEvents:
    """Fill the table loaded_events (user_id, item_id, moment, problem, below_min_rating), one row per event.

    user_id, item_id: int64 if every id is an integer, else text; moment: int64, microseconds UTC.
    Raises InputError if more rows than `config.max_bad_rows` are unusable, naming file, line and value of the first, or
    if the unit of times is mixed or unknown; ConfigError if a query fails.
    """
    log = _open(con, ratings, config)
    for role in (log.user, log.item):
        _refuse_lost_digits(con, log, role)
    _refuse_quotes(con, log)
    types, warnings = _load(con, log)
    merged = [
        record
        for source in log.sources
        for record in merged_records(con, source, [log.user, log.item, log.timestamp], log.timestamp)
    ]
    if merged:
        _leave_out_merged(con, log, merged)
        types, warnings = _load(con, log)
    loaded = _check_rejects(con, log, [row for record in merged for row in record.rows])
    # Only now, because an error must be the only line.
    for warning in warnings:
        _log.warning("%s", warning)
    con.execute("delete from loaded_events where before_since")
    for name, query in (("user", "sequences/respelled_users"), ("item", "sequences/respelled_items")):
        if types.has_blanks(name):
            materialize(con, query, blanks=BLANKS)
            con.execute(f"drop table loaded_events; alter table {table_of(query)} rename to loaded_events")
    return loaded


def _open(con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig) -> _Log:
    """Open the log as the view `records`."""
    needs_rating = config.min_rating is not None
    if config.query is not None:
        names = ["user_id", "item_id", "timestamp", *(["rating"] if needs_rating else [])]
        sources = [open_query(con, Path(config.query), dict.fromkeys(names, "--query"), config.night)]
    else:
        names = [config.user_column, config.item_column, config.timestamp_column]
        names += [config.rating_column] if needs_rating else []
        options = ("--user-column", "--item-column", "--timestamp-column", "--rating-column")
        wanted = dict(zip(names, options, strict=False))
        paths, tables = split_tables(ratings)
        listing = list_files(paths, "--ratings FILE")
        if listing.unread:
            _log.warning("files are not read: %s", shown_files(listing.unread))
        files = fetch(con, needed_files(listing.files, config), wanted)
        sources = open_sources(con, files, wanted, config.csv_options)
        sources += open_tables(con, tables, wanted, rows_of_tables(config))
    log = _Log(names[0], names[1], names[2], names[3] if needs_rating else None, sources, config)
    unite(con, sources, "sequences/records", dict(zip(_ROLES, log.columns, strict=True))).create_view("all_records")
    con.view("all_records").create_view("records")
    return log


def _refuse_lost_digits(con: duckdb.DuckDBPyConnection, log: _Log, column: str) -> None:
    """Raise InputError if a column of floats has ids beyond the whole numbers that a float can distinguish."""
    for source in log.sources:
        limit = FLOATS.get(source.type_of(column))
        if limit is None:
            continue
        row = select(con, "sequences/greatest_id", source=source.view, id_column=source.names[column]).fetchall()[0]
        greatest = row[0]
        if greatest is not None and greatest > limit:
            raise InputError(
                f"{shown_files(source.places) or log.config.query}: column {column!r} has ids as floats, up to "
                f"{greatest:.0f}: above {limit} they have lost digits. Write them as integers or text"
            )


def _refuse_quotes(con: duckdb.DuckDBPyConnection, log: _Log) -> None:
    """Raise InputError for a quoted value in a file whose first lines make quotes look like ordinary characters."""
    for source in log.sources:
        layout = source.layout
        is_guess = layout is not None and layout.is_csv and not layout.quote and log.config.quote == "auto"
        if layout is None or not is_guess or not any(contains_quote(file, layout, '"') for file in source.files):
            continue
        names = {role: source.names[column] for role, column in zip(_ROLES[:3], log.columns, strict=False)}
        for file, *values in select(con, "sequences/quoted_values", source=source.view, **names).fetchall():
            value = next(value for value in values if value and value.startswith('"') and value.endswith('"'))
            raise InputError(
                f"{file}: value {value!r} is quoted, but no field near the start of the file is. Pass --quote '\"' if "
                "quotes enclose fields, or --quote none if they are ordinary characters"
            )


def _load(con: duckdb.DuckDBPyConnection, log: _Log) -> tuple[IdTypes, list[str]]:
    """Load the events, and load them again if an id is not an integer or the times have another unit than expected.

    Returns the types of the ids, and warnings about ids and times.
    """
    config, unit = log.config, log.config.timestamp_unit
    has_quotes = any(has_quoted_fields(each.layout, each.files) for each in log.sources if each.layout is not None)
    types = IdTypes.expected(log.sources, log.user, log.item, config)
    wanted = ((log.user, config.user_id_type), (log.item, config.item_id_type))
    warnings = [mixed_types(log.sources, column) for column, id_type in wanted if id_type == "auto"]
    while True:
        _read(con, config, types, unit, has_quotes)
        checks = select(con, "sequences/load_checks").to_arrow_table().to_pylist()
        times = times_of(checks)
        types = types.fitting(checks)
        if unit == "auto":
            _refuse_times(con, log, times)
        needed = unit_needed(times) if unit == "auto" else unit
        if not types.to_change and needed == unit:
            break
        for role in types.to_change:
            warnings.append(types.warning(role, _example(con, log, role)))
        types, unit = types.changed(), needed
    about_times = warnings_of(times, config.timestamp_unit)
    warnings += [f"{_example(con, log, kind)}: {warning}" for warning, kind in about_times]
    return types, [warning for warning in warnings if warning is not None]


def _refuse_times(con: duckdb.DuckDBPyConnection, log: _Log, times: Sequence[TimesOfKind]) -> None:
    """Raise InputError if numeric times need an explicit unit or format."""
    problem = problem_of(con, times, is_query=log.config.query is not None)
    if problem is not None:
        kinds, text = problem
        examples = [_example(con, log, kind) for kind in kinds]
        others = "".join(f", {example.value!r}" for example in examples[1:])
        raise InputError(f"{examples[0]}{others}: {text}")


def _read(con: duckdb.DuckDBPyConnection, config: SequencesConfig, types: IdTypes, unit: str, has_quotes: bool) -> None:
    con.execute("drop table if exists loaded_events; drop table if exists reject_errors")
    con.execute("drop table if exists reject_scans")
    integers = {True: duckdb.Value(0, duckdb.sqltypes.BIGINT), False: ""}
    more_words = config.csv_options.null_words
    select(
        con,
        "sequences/events",
        users_are_integers=types.users.are_integers,
        user_type=integers[types.users.are_integers],
        users_must_be_integers=config.user_id_type == "integer",
        items_are_integers=types.items.are_integers,
        item_type=integers[types.items.are_integers],
        items_must_be_integers=config.item_id_type == "integer",
        null_words=null_pattern(more_words),
        has_null_words=bool(more_words),
        has_quotes=has_quotes,
        blanks=BLANKS,
        whole_number=WHOLE_NUMBER,
        lost_digits=_LOST_DIGITS,
        timestamp_format=config.timestamp_format,
        timestamp_unit=unit,
        since=first_moment(config),
        min_rating=config.min_rating,
    ).create_view("events")
    materialize(con, "sequences/loaded_events")


def _leave_out_merged(con: duckdb.DuckDBPyConnection, log: _Log, merged: Sequence[MergedRecord]) -> None:
    """Remove the records that a stray quote has merged from the view `records`."""
    names = ("user_id", "item_id", "event_time", "rating")
    rows = []
    for record in merged:
        fields = dict(partitions_of(record.file)) | record.fields
        values = [fields[column] or None for column in log.columns]
        rows.append({"file": record.file, **dict(zip(names, values, strict=True))})
    schema = pa.schema([(name, pa.string()) for name in ("file", *names)])
    con.from_arrow(pa.Table.from_pylist(rows, schema)).create("merged_records")
    select(con, "sequences/unmerged_records").create_view("records")


def _example(con: duckdb.DuckDBPyConnection, log: _Log, criterion: int | str) -> Reject:
    """Return the first event with a kind of time (int), or with an unfit user or item id (str): file, line, value."""
    con.execute("set preserve_insertion_order = true")
    time_kind, unfit = (criterion, None) if isinstance(criterion, int) else (None, criterion)
    (file, *raw), *_ = select(con, "sequences/example_event", time_kind=time_kind, unfit=unfit).fetchall()
    con.execute("set preserve_insertion_order = false")
    (line,) = log.lines(file, [tuple(raw)])
    of_ids = {"user": (log.user, raw[0]), "item": (log.item, raw[1])}
    column, value = of_ids.get(str(criterion), (log.timestamp, raw[2]))
    return Reject(file, line, column, value)


def _check_rejects(con: duckdb.DuckDBPyConnection, log: _Log, merged: list[Reject]) -> LoadedEvents:
    counts = dict(select(con, "sequences/event_counts").fetchall())
    n_used, n_old, n_below = (counts.get(reason, 0) for reason in (None, "before --since", "below --min-rating"))
    malformed = malformed_records(con, log.sources)
    for source in log.sources:
        check_no_record_lost(con, source, malformed)
    not_parsed = malformed + merged
    n_unusable = sum(counts.values()) - n_used - n_old - n_below
    n_bad, n_rows = n_unusable + len(not_parsed), sum(counts.values()) + len(not_parsed)
    if n_bad <= log.config.bad_rows_allowed(n_rows):
        unusable = list(_unusable(con, log, n_unusable)) if n_unusable else []
        return LoadedEvents(n_rows, n_old, n_below, not_parsed + unusable)
    first = not_parsed[0] if not_parsed else next(_unusable(con, log, 1))
    advice = f"Fix them, or allow as many with --max-bad-rows (now {log.config.max_bad_rows})"
    if merged:
        advice = f"If quotes are ordinary characters in this file pass --quote none. {advice}"
    elif n_bad == n_rows:
        advice = f"{advice_on(first.reason)}{advice}"
    raise InputError(f"{first}; {n_bad} of {n_rows} rows cannot be used. {advice}")


def _unusable(con: duckdb.DuckDBPyConnection, log: _Log, n_rows: int) -> Iterator[Reject]:
    con.execute("set preserve_insertion_order = true")
    rows = select(con, "sequences/unusable_events", n_rows=n_rows).fetchall()
    for file, group in groupby(rows, key=lambda row: row[0]):
        events = list(group)
        lines = log.lines(file, [row[2:] for row in events])
        for (_, reason, *raw), line in zip(events, lines, strict=True):
            yield Reject(file, line, reason, shown_value(reason, raw))
