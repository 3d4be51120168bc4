"""The rows of a table as a target publishes them: in a layout, with the run date, ordered by user or item."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrec.arrays import Longs
from batchrec.config import TargetLayout
from batchrec.errors import ConfigError, InputError, RefusedError, one_line
from batchrec.tables.parquet import cast_batches
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import REASON_COLUMNS, recs_schema, similar_schema
from batchrec.tables.sealed_parquet import open_parquet, parquet_of
from batchrec.targets.target import PublishedTable

# Recommendations per batch: a row group of this size is read quickly for one user, and compresses well.
BATCH_ROWS = 250_000
RUN_DATE = "run_date"
# Columns that a user has once in the nested layout; Postgres nests by sql/targets/postgres_nested.sql.
_OF_USER = ("user_id", "history_digest", "model_id")
_LIST = "recommendations"
_IDS = ("user_id", "item_id", "similar_item_id")


@contextmanager
def open_rows(
    table: PublishedTable, layout: TargetLayout, *, is_dated: bool, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatchReader]:
    """Yield a reader of a table's rows, ordered by user_id (item_id of similar), then rank, read as they are asked for.

    long, similar: the columns of the table. nested: one row per user, with user_id, history_digest, model_id, and
    recommendations, a list of structs of the other columns. is_dated: with a last column run_date (date32).
    batch_rows: rows of `long` per batch, about; all of a user or item are in one batch. Raises InputError if the table
    is damaged.
    """
    try:
        file = parquet_of(open_parquet(table.recs))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{table.recs}: cannot be read: {one_line(error)}") from error
    recs = file.schema_arrow.remove_metadata()
    schema = rows_schema(recs, layout, is_dated=is_dated)
    with _ordered(table, file) as batches:
        rows = (
            _with_run_date(_nested(batch, schema) if layout == "nested" else batch, table, schema)
            for batch in _of_whole_users(batches, batch_rows)
        )
        yield pa.RecordBatchReader.from_batches(schema, rows)


def rows_schema(recs: pa.Schema, layout: TargetLayout, *, is_dated: bool) -> pa.Schema:
    """Return the schema of the rows of a table in a layout; see open_rows."""
    fields = list(recs.remove_metadata())
    if layout == "nested":
        item = pa.struct([field for field in recs if field.name not in _OF_USER])
        recommendations = pa.list_(pa.field("element", item, nullable=False))
        fields = [recs.field(name) for name in _OF_USER] + [pa.field(_LIST, recommendations, nullable=False)]
    return pa.schema([*fields, *([pa.field(RUN_DATE, pa.date32(), nullable=False)] if is_dated else [])])


def schema_of(table: PublishedTable, layout: TargetLayout, *, is_dated: bool) -> pa.Schema:
    """Return the schema of a table's rows without reading them; see open_rows."""
    return rows_schema(pq.read_schema(table.recs), layout, is_dated=is_dated)


def check_columns(names: Iterable[str], layout: TargetLayout, where: object) -> None:
    """Raise ConfigError if an existing table of a dated target has other columns than the rows of a layout.

    where: the table, for the message. A column title may be missing or not, and so may all columns of reasons; the
    types are those of the ids.
    """
    existing = set(names)
    if layout == "similar":
        schema = similar_schema(pa.int64(), with_titles=True, made_by={})
    else:
        with_reasons = not existing.isdisjoint(REASON_COLUMNS)
        schema = recs_schema(pa.int64(), pa.int64(), with_titles=True, made_by={}, with_reasons=with_reasons)
    columns = set(rows_schema(schema, layout, is_dated=True).names)
    if existing | ({"title"} & columns) != columns:
        raise ConfigError(
            f"{where}: exists with columns {', '.join(names)}; expected {', '.join(sorted(columns))}, which "
            f"{'similar' if layout == 'similar' else f'--layout {layout}'} writes. Pass another "
            f"--out{other_layout(layout)}"
        )


def check_part_types(existing: pa.Schema | None, table: PublishedTable, layout: TargetLayout, where: object) -> None:
    """Raise RefusedError if a table's ids have another type than those of an earlier run date in the same folder.

    Readers take the types of one file for all, so that 007 would become 7. existing: of a file of the earlier date,
    None if it is damaged. where: the folder, for the message.
    """
    earlier = {} if existing is None else _id_types(existing)
    for name, type_ in _id_types(schema_of(table, layout, is_dated=False)).items():
        if earlier.get(name, type_) != type_:
            raise RefusedError(
                f"{where}: {name} of an earlier run date is {earlier[name]}, but that of the new rows is {type_}. "
                "Pass another --out, or delete the earlier run dates"
            )


def _id_types(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the types of the columns of ids, also of those in a nested list."""
    columns = [column for field in schema for column in (field.type.value_type if field.name == _LIST else [field])]
    return {column.name: column.type for column in columns if column.name in _IDS}


def other_layout(layout: TargetLayout) -> str:
    """Return the end of a message that names --out: --layout may be another one, except that of similar items."""
    return "" if layout == "similar" else ", or another --layout"


@contextmanager
def _ordered(table: PublishedTable, file: pq.ParquetFile) -> Iterator[Iterator[pa.RecordBatch]]:
    """Yield the batches of a table, ordered by its first column, the user or the item."""
    if _is_ordered(table, file):
        yield _read(table, file)
        return
    # Histories that another program wrote may be in any order.
    with connect(table.recs.parent) as con:
        rows = select(con, "targets/sorted_recs", recs=literal(table.recs))
        yield cast_batches(rows, file.schema_arrow.remove_metadata(), BATCH_ROWS)


def _is_ordered(table: PublishedTable, file: pq.ParquetFile) -> bool:
    last: pa.Array | None = None
    for batch in _read(table, file, [file.schema_arrow.names[0]]):
        users = batch[0] if last is None else pa.concat_arrays([last, batch[0]])
        if pc.any(pc.less(users[1:], users[:-1])).as_py():
            return False
        last = users[-1:]
    return True


def _read(table: PublishedTable, file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    try:
        for batch in file.iter_batches(columns=columns):
            yield batch.replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{table.recs}: cannot be read: {one_line(error)}") from error


def _of_whole_users(batches: Iterable[pa.RecordBatch], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Put batches together to at least n_rows rows each, but for the last one, and cut them between users."""
    collected: list[pa.RecordBatch] = []
    n_collected = 0
    for batch in batches:
        collected.append(batch)
        n_collected += len(batch)
        if n_collected < n_rows:
            continue
        rows = pa.concat_batches(collected)
        starts, first = _user_starts(rows), 0
        # The last user's rows may continue in the next batch.
        while first + n_rows <= starts[-1]:
            stop = int(starts[np.searchsorted(starts, first + n_rows)])
            yield rows.slice(first, stop - first)
            first = stop
        collected, n_collected = [rows.slice(first)], len(rows) - first
    if n_collected:
        yield pa.concat_batches(collected)


def _user_starts(rows: pa.RecordBatch) -> Longs:
    """Return the first row of each user, or item: (users,) int64."""
    users = rows[0]
    differs = pc.not_equal(users[1:], users[:-1]).to_numpy(zero_copy_only=False)
    starts: Longs = np.concatenate([[0], np.flatnonzero(differs) + 1]).astype(np.int64)
    return starts


def _nested(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return one row per user, without the run date."""
    starts = _user_starts(rows)
    type_ = schema.field(_LIST).type
    fields = list(type_.value_type)
    items = pa.StructArray.from_arrays([rows[field.name] for field in fields], fields=fields)
    offsets = pa.array(np.append(starts, len(rows)), pa.int32())
    recommendations = pa.ListArray.from_arrays(offsets, items, type=type_)
    of_user = rows.select(_OF_USER).take(pa.array(starts))
    return pa.record_batch(
        [*of_user.columns, recommendations], schema=pa.schema([schema.field(name) for name in (*_OF_USER, _LIST)])
    )


def _with_run_date(rows: pa.RecordBatch, table: PublishedTable, schema: pa.Schema) -> pa.RecordBatch:
    columns = list(rows.columns)
    if RUN_DATE in schema.names:
        columns.append(pa.repeat(pa.scalar(table.run_date, pa.date32()), len(rows)))
    return pa.record_batch(columns, schema=schema)
