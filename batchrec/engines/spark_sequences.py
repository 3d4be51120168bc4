"""build-sequences on a Spark cluster, for logs that one machine cannot hold.

The workers run the queries and the assembly of histories of sequences/: file by file, to decide how values are typed
and to type them; then over ranges of users, to filter, order and assemble. Spark only moves the typed events.
"""

import math
import pickle
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import SequencesConfig
from batchrec.engines.shipping import from_bytes
from batchrec.engines.spark_log import SparkScans, file_events
from batchrec.engines.spark_session import spark_session
from batchrec.engines.user_ranges import RangeSummary, UserRanges
from batchrec.errors import ConfigError, InputError
from batchrec.sequences.build import Built, check_not_empty, left_out_of, where_of
from batchrec.sequences.events import LoadedEvents, check_events
from batchrec.sequences.histories import Written
from batchrec.sequences.log import Log, open_log
from batchrec.sequences.scans import Typing
from batchrec.system.logs import redacted
from batchrec.system.urls import is_url
from batchrec.tables.log_end import EventsAhead, ahead_from
from batchrec.tables.parquet import write_parquet
from batchrec.tables.schemas import sequences_schema

# Events of one range of users, about: it is sorted by one worker.
_RANGE_EVENTS = 1 << 22


def build_on_spark(con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig, out: Path) -> Built:
    """Write the sequences table `out`, row for row as build_here does.

    Raises as `build_sequences`, ConfigError for a query, InputError for ids with blanks around them, and EngineError if
    the cluster cannot be reached or fails.
    """
    if config.query is not None:
        raise ConfigError(
            "--engine spark: reads files, but --query runs on one machine. Pass --ratings, or no --engine"
        )
    url = next((path for path in ratings if is_url(path)), None)
    if url is not None:
        raise ConfigError(f"{redacted(url)}: is read on one machine. Pass paths that all workers see, or no --engine")
    # Workers run in folders of their own. An empty path must stay empty: it names no file.
    log = open_log(con, [path and str(Path(path).absolute()) for path in ratings], config)
    with spark_session() as spark:
        scans = SparkScans(spark, con, log)
        loaded = check_events(scans, scans.has_quoted_fields())
        _refuse_blanks(log, loaded.typing)
        return _write(spark, scans, loaded, where_of(ratings, config), out)


def _refuse_blanks(log: Log, typing: Typing) -> None:
    for role, column in (("user", log.user), ("item", log.item)):
        if typing.types.has_blanks(role):
            raise InputError(
                f"column {column!r} has ids with blanks around them; expected none with --engine spark, which does not "
                "look for the other spellings of an id. Trim them, or build without --engine"
            )


def _write(spark: Any, scans: SparkScans, loaded: LoadedEvents, where: str, out: Path) -> Built:
    """Partition the typed events by ranges of users, and write their histories, range by range."""
    from pyspark import StorageLevel

    config, typing = scans.log.config, loaded.typing
    roles = (typing.types.users, typing.types.items)
    user_type, item_type = (pa.int64() if role.are_integers else pa.string() for role in roles)
    schema = sequences_schema(user_type, item_type)
    files = spark.range(len(scans.files), numPartitions=len(scans.files))
    columns = f"user_id {_SQL[user_type]}, item_id {_SQL[item_type]}, moment bigint, left_out boolean"
    events = files.mapInArrow(partial(file_events, scans.files, config, typing), columns)
    # Spark reads them twice: to choose the ranges, and to move the events.
    events.persist(StorageLevel.DISK_ONLY)
    n_ranges = max(spark.sparkContext.defaultParallelism, math.ceil(loaded.n_rows / _RANGE_EVENTS))
    ranges = UserRanges(config, schema, ahead_from())
    by_user = events.repartitionByRange(n_ranges, "user_id")
    if config.min_item_events > 1:
        counted = by_user.mapInArrow(ranges.item_counts, f"item_id {_SQL[item_type]}, n_events bigint")
        counts = counted.groupBy("item_id").sum("n_events").toDF("item_id", "n_events")
        frequent = counts.where(f"n_events >= {config.min_item_events}").toArrow()
        ranges = ranges.with_counts(spark.sparkContext.broadcast(frequent))
    parts = by_user.mapInArrow(ranges.histories, "is_summary boolean, content binary")
    parts.persist(StorageLevel.DISK_ONLY)
    summaries = [pickle.loads(row.content) for row in parts.where("is_summary").collect()]  # noqa: S301 - of our workers
    built = _sum(summaries, loaded, schema, ranges.ahead)
    check_not_empty(built.n_items, loaded, built.left_out, where)
    rows = parts.where("not is_summary").toLocalIterator(prefetchPartitions=True)
    write_parquet((from_bytes(bytes(row.content)) for row in rows), schema, out)
    parts.unpersist()
    events.unpersist()
    return built


_SQL = {pa.int64(): "bigint", pa.string(): "string"}


def _sum(summaries: Sequence[RangeSummary], loaded: LoadedEvents, schema: pa.Schema, ahead: int) -> Built:
    items = pa.array([], schema.field("item_ids").type.value_type)
    written, left_out = Written(EventsAhead(ahead)), Counter[str]()
    for summary in summaries:
        items = pc.unique(pa.concat_arrays([items, summary.items]))
        written.add(summary.written)
        left_out += summary.left_out
    return Built(loaded, left_out_of(loaded, left_out), len(items), schema, written)
