"""Inspect a log, or any other table that people write: its columns, and what build-sequences would make of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import duckdb

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.inspection.inspection import N_ROWS, Inspection
from batchrec.sequences.events import load_events
from batchrec.sources import Source, describe_error, fetch, find_files, guess_column, malformed_records, open_sources
from batchrec.tables.queries import connect, rows_of

# Rows by whose values the types of text are told.
_N_SAMPLED = 1_000


def inspect_log(path: str, config: SequencesConfig) -> Inspection:
    """Inspect files of CSV, JSON lines or Parquet: a file, a folder, a glob or a URL.

    config: of build-sequences; columns that the log lacks are guessed by their usual names. Rows that cannot be used
    are counted. Raises InputError for anything else that build-sequences refuses, and for a file that is not a table.
    """
    with connect() as con:
        try:
            sources = open_sources(con, fetch(con, find_files([path], "another path"), ()), {}, config.csv_options)
            rows = [_rows(con, source) for source in sources]
            figures: dict[str, Any] = {
                "files": sum(len(source.files) for source in sources),
                "rows": sum(len(con.view(source.view)) for source in sources),
            }
            bad = malformed_records(con, sources)
        except duckdb.Error as error:
            raise InputError(f"{path}: {describe_error(error)}") from error
    columns, head = _types(sources[0], rows[0]), rows[0][:N_ROWS]
    user, item, time = (
        named if named in columns else guess_column(option, list(columns))
        for named, option in (
            (config.user_column, "--user-column"),
            (config.item_column, "--item-column"),
            (config.timestamp_column, "--timestamp-column"),
        )
    )
    figures["rows"] += len(bad)
    if user is None or item is None or time is None or len({user, item, time}) < 3:
        if bad:
            raise InputError(f"{bad[0]}; {len(bad)} of {figures['rows']} rows cannot be used. Fix them")
        kind = "a table, but no log: it has no columns that are named like users, items and times"
        return Inspection(path, kind, ["every row parses"], figures, columns, head)
    figures |= {"user column": user, "item column": item, "timestamp column": time}
    config = replace(config, query=None, user_column=user, item_column=item, timestamp_column=time)
    # They are counted, whatever build-sequences would do.
    config = replace(config, max_bad_rows="100%")
    figures |= _events(path, config)
    return Inspection(path, "a log", ["every row: its ids and its time"], figures, columns, head)


def _events(path: str, config: SequencesConfig) -> dict[str, Any]:
    """Return the figures of the events that build-sequences would read, with the ids and times as it types them."""
    with connect() as con:
        try:
            loaded = load_events(con, [path], config)
            (figures,) = rows_of(con, "inspection/events")
        except duckdb.Error as error:
            raise InputError(f"{path}: {describe_error(error)}") from error
    if not figures["events"]:
        raise InputError(
            f"{loaded.rejects[0]}; no row of the log can be used" if loaded.rejects else f"{path}: no rows"
        )
    figures["rows that cannot be used"] = len(loaded.rejects)
    return figures | ({"first of these": str(loaded.rejects[0])} if loaded.rejects else {})


def _rows(con: duckdb.DuckDBPyConnection, source: Source) -> list[dict[str, Any]]:
    """Return the first rows of a source by the names of its columns."""
    relation = con.view(source.view).limit(_N_SAMPLED)
    columns = {within: name for name, within in source.names.items()}
    return [
        {columns[name]: value for name, value in zip(relation.columns, row, strict=True) if name in columns}
        for row in relation.fetchall()
    ]


def _types(source: Source, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the type of each column: of the file, or what its texts look like."""
    if not source.is_untyped:
        return {name: source.arrow_type_of(name) or source.type_of(name) for name in source.names}
    return {name: _kind([row[name] for row in rows if row[name] is not None]) for name in source.names}


def _kind(texts: Sequence[str]) -> str:
    """Return what texts look like: integers, numbers, times, or text."""
    for kind, parse in (("integer", int), ("number", float), ("time", datetime.fromisoformat)):
        try:
            for text in texts:
                parse(text)
        except ValueError:
            continue
        return f"text that looks like {kind}s" if texts else "without values"
    return "text"
