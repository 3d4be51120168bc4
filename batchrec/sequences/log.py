"""The log of build-sequences as it is opened: its files or query as the DuckDB view `records`, every value as text."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import duckdb
import pyarrow as pa

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.sequences.event_times import start_of_times
from batchrec.sequences.since import needed_files, rows_of_tables
from batchrec.sources import (
    InputFile,
    MergedRecord,
    Source,
    contains_quote,
    fetch,
    has_quoted_fields,
    line_numbers,
    list_files,
    lost_digits,
    merged_records,
    open_query,
    open_sources,
    open_tables,
    partitions_of,
    shown_files,
    split_tables,
    unite,
)
from batchrec.tables.queries import select

_log = logging.getLogger(__name__)

_ROLES = ("user_column", "item_column", "timestamp_column", "rating_column", "event_column", "value_column")


@dataclass(frozen=True)
class Log:
    """The log as it is read: the column of each role, and the sources that have these columns."""

    user: str
    item: str
    timestamp: str
    rating: str | None
    sources: list[Source]
    config: SequencesConfig

    @property
    def columns(self) -> list[str]:
        """The columns of users, items, times, ratings, types and values."""
        optional = (self.rating, self.config.event_column, self.config.value_column)
        # If one is not needed, the time column takes its place and is ignored.
        return [self.user, self.item, self.timestamp, *(column or self.timestamp for column in optional)]

    @property
    def has_quoted_fields(self) -> bool:
        """Whether fields of a file may be quoted."""
        return any(
            has_quoted_fields(source.layout, source.files) for source in self.sources if source.layout is not None
        )

    @property
    def has_csv(self) -> bool:
        """Whether a file is CSV."""
        return any(source.is_csv for source in self.sources)

    def lines(self, file: str, records: Sequence[tuple[str | None, ...]]) -> list[int | None]:
        """Return the lines of records of a file, matched by their values; None if they are not lines of text."""
        source, opened = next(((s, f) for s in self.sources for f in s.files if str(f) == file), (None, None))
        if source is None or opened is None or source.layout is None or not source.is_untyped:
            return [None] * len(records)
        return line_numbers(opened, source.layout, records, self.columns)


def open_log(con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig) -> Log:
    """Open files, folders, globs and URLs, or the query of the config, as the view `records`.

    Raises InputError for a file that cannot be read or lacks a column, ConfigError if a query fails.
    """
    if config.query is not None:
        query, night = Path(config.query), config.night
        config = replace(
            config,
            user_column="user_id",
            item_column="item_id",
            timestamp_column="timestamp",
            rating_column="rating",
            # Or it could change at midnight.
            run_date=night.isoformat(),
        )
        wanted = dict.fromkeys(_wanted(config), "--query")
        if config.min_rating is not None:
            # It may be set in a file, far from the query.
            wanted["rating"] = "--min-rating"
        source = open_query(con, query, wanted, night)
        return _united(con, [source], config)
    paths, tables = split_tables(ratings)
    listing = list_files(paths, "--ratings FILE")
    if listing.unread:
        _log.warning("files are not read: %s", shown_files(listing.unread))
    wanted = _wanted(config)
    files = fetch(con, needed_files(listing.files, config), wanted)
    sources = open_sources(con, files, wanted, config.csv_options)
    sources += open_tables(con, tables, wanted, rows_of_tables(config))
    return _united(con, sources, config)


def open_files(con: duckdb.DuckDBPyConnection, files: Sequence[InputFile], config: SequencesConfig) -> Log:
    """Open some files of a log as the view `records`. Raises InputError as `open_log` does."""
    return _united(con, open_sources(con, files, _wanted(config), config.csv_options), config)


def _wanted(config: SequencesConfig) -> dict[str, str]:
    """Return the columns to read, and the option that names each."""
    optional = {
        config.rating_column if config.min_rating is not None else None: "--rating-column",
        config.event_column: "--event-column",
        config.value_column: "--value-column",
    }
    required = {
        config.user_column: "--user-column",
        config.item_column: "--item-column",
        config.timestamp_column: "--timestamp-column",
    }
    return required | {column: option for column, option in optional.items() if column is not None}


def _united(con: duckdb.DuckDBPyConnection, sources: list[Source], config: SequencesConfig) -> Log:
    rating = config.rating_column if config.min_rating is not None else None
    log = Log(config.user_column, config.item_column, config.timestamp_column, rating, sources, config)
    records = unite(con, sources, "sequences/records", dict(zip(_ROLES, log.columns, strict=True)))
    for view in ("all_records", "records"):
        records.create_view(view)
    return log


def refuse_lost_digits(con: duckdb.DuckDBPyConnection, log: Log) -> None:
    """Raise InputError if a column of floats has ids or times that a float cannot distinguish from others."""
    for column, source in product((log.user, log.item, log.timestamp), log.sources):
        values = "times" if column == log.timestamp else "ids"
        problem = lost_digits(con, source, column, values, log.config.query or "")
        if problem is not None:
            raise InputError(problem)


def refuse_quotes(con: duckdb.DuckDBPyConnection, log: Log) -> None:
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


def find_merged(con: duckdb.DuckDBPyConnection, log: Log) -> list[MergedRecord]:
    """Return the records that a stray quote has merged, in the order of the files."""
    wanted = [log.user, log.item, log.timestamp]
    times = log.timestamp, start_of_times(log.config.timestamp_format)
    return [record for source in log.sources for record in merged_records(con, source, wanted, times)]


def leave_out_merged(con: duckdb.DuckDBPyConnection, log: Log, merged: Sequence[MergedRecord]) -> None:
    """Remove the records that a stray quote has merged from the view `records`; malformed ones are not in it."""
    names = ("user_id", "item_id", "event_time", "rating", "event_type", "event_value")
    rows = []
    for record in merged:
        if record.fields is None:
            continue
        fields = dict(partitions_of(record.file)) | record.fields
        values = [fields[column] or None for column in log.columns]
        rows.append({"file": record.file, **dict(zip(names, values, strict=True))})
    if not rows:
        return
    schema = pa.schema([(name, pa.string()) for name in ("file", *names)])
    con.from_arrow(pa.Table.from_pylist(rows, schema)).create("merged_records")
    select(con, "sequences/unmerged_records").create_view("records")
