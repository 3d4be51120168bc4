"""The sequences table: opened once, its contract checked as it streams."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError, one_line
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import id_type, is_list, sequences_schema
from batchrec.tables.sealed_parquet import open_parquet, parquet_of


def no_items(n_users: int, list_type: pa.DataType) -> pa.ListArray:
    """Return an empty list for each user."""
    return pa.ListArray.from_arrays(pa.array(np.zeros(n_users + 1, np.int32)), pa.array([], list_type.value_type))


@dataclass(frozen=True)
class Sequences:
    """A sequences table on disk whose columns and types hold to the contract.

    columns: those of the schema that the file has; the only one that it may lack is also_seen. file: opened once, and
    read from then.
    """

    path: Path
    schema: pa.Schema
    n_users: int
    columns: list[str]
    file: pa.NativeFile = field(repr=False, compare=False)

    @property
    def user_type(self) -> pa.DataType:
        """The type of user ids: int64 or string."""
        return self.schema.field("user_id").type

    @property
    def item_type(self) -> pa.DataType:
        """The type of item ids: int64 or string."""
        return self.schema.field("item_ids").type.value_type

    def batches(self, n_users: int) -> Iterator[pa.RecordBatch]:
        """Stream the table in batches of up to `n_users` rows.

        Raises InputError for nulls, lists of unequal length and histories that are not in time order.
        """
        try:
            for batch in parquet_of(self.file).iter_batches(n_users, columns=self.columns):
                _check_nulls(batch, self.path)
                found = batch
                if "also_seen" not in self.columns:
                    nothing = no_items(len(batch), self.schema.field("also_seen").type)
                    found = batch.append_column("also_seen", nothing)
                checked = found.select(self.schema.names).cast(self.schema)
                _check_histories(checked, self.path)
                yield checked
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: {one_line(error)}") from error

    def check_same(self) -> None:
        """Raise InputError if another file has taken the name, under which DuckDB reads it, or this one has changed."""
        opened = os.fstat(self.file.fileno())
        try:
            named = self.path.stat()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
        identity = "st_dev", "st_ino", "st_size", "st_mtime_ns"
        if any(getattr(opened, name) != getattr(named, name) for name in identity):
            raise InputError(f"{self.path}: was replaced while it was read. Start again")


def open_sequences(path: Path) -> Sequences:
    """Open a sequences table.

    Raises InputError where the file is missing, is not Parquet, is damaged or empty, repeats a user, or lacks a column
    or type of the contract.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Run batchrec build-sequences, or pass --sequences FILE")
    try:
        opened = open_parquet(path)
        file = parquet_of(opened)
    except pa.ArrowException as error:
        raise InputError(f"{path}: not a Parquet file: {one_line(error)}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}. Run batchrec build-sequences again") from error
    found = file.schema_arrow
    for name in ("user_id", "item_ids", "timestamps", "also_seen"):
        times = found.names.count(name)
        # Tables of before contract version 2, and people's own, need not have also_seen.
        if times != 1 and (times, name) != (0, "also_seen"):
            problem = "no column" if times == 0 else f"{times} columns"
            raise InputError(f"{path}: {problem} {name!r}; found {', '.join(found.names)}")
    if not is_list(found.field("item_ids").type) or not is_list(found.field("timestamps").type):
        raise InputError(f"{path}: columns 'item_ids' and 'timestamps' must be lists; found {found.types}")
    if file.metadata.num_rows == 0:
        raise InputError(f"{path}: holds no users")
    schema = sequences_schema(
        id_type(found.field("user_id").type, "user_id", str(path)),
        id_type(found.field("item_ids").type.value_type, "item_ids", str(path)),
    )
    _check_also_seen(found, schema, path)
    columns = [name for name in schema.names if name in found.names]
    table = Sequences(path, schema, file.metadata.num_rows, columns, opened)
    try:
        with connect() as con:
            repeated = select(con, "tables/repeated_users", path=literal(path)).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    if repeated:
        raise InputError(f"{path}: user {repeated[0][0]} has {repeated[0][1]} rows; expected one row a user")
    table.check_same()
    return table


def _check_also_seen(found: pa.Schema, schema: pa.Schema, path: Path) -> None:
    """Raise InputError where there is a column also_seen whose ids are not of the type of the histories'."""
    if "also_seen" not in found.names:
        return
    own = found.field("also_seen").type
    # A list that is empty for everybody may have no type.
    if is_list(own) and pa.types.is_null(own.value_type):
        return
    wanted = schema.field("item_ids").type.value_type
    if not is_list(own) or id_type(own.value_type, "also_seen", str(path)) != wanted:
        raise InputError(f"{path}: column 'also_seen' is {own}; expected a list of {wanted}, as 'item_ids' is one")


def _check_nulls(batch: pa.RecordBatch, path: Path) -> None:
    for column in batch.schema.names:
        values = batch[column]
        nulls = values.null_count + (values.flatten().null_count if is_list(values.type) else 0)
        if nulls:
            raise InputError(f"{path}: {nulls} null(s) in column {column!r}; expected none")


def _check_histories(batch: pa.RecordBatch, path: Path) -> None:
    lengths = pc.list_value_length(batch["item_ids"])
    moments = batch["timestamps"].flatten()
    unequal = pc.filter(batch["user_id"], pc.not_equal(lengths, pc.list_value_length(batch["timestamps"])))
    if len(unequal):
        raise InputError(f"{path}: user {unequal[0]}: item_ids and timestamps are of unequal length")
    backwards = moments.to_numpy()[1:] < moments.to_numpy()[:-1]
    ends = np.cumsum(lengths.to_numpy(), dtype=np.int64)
    # From the last event of a history to the first of the next one, time may go back.
    backwards[ends[(ends > 0) & (ends < len(moments))] - 1] = False
    if backwards.any():
        user = batch["user_id"][int(np.searchsorted(ends, backwards.argmax(), side="right"))]
        raise InputError(f"{path}: user {user}: the history is not in time order, oldest first")
