"""The sequences table: opened once, its contract checked as it streams."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Bools
from batchrec.errors import ConfigError, InputError, one_line
from batchrec.tables.ids import without_blanks
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import WEIGHED_COLUMNS, id_type, is_list, sequences_schema
from batchrec.tables.sealed_parquet import open_parquet, parquet_of

# Columns with a value for each event of the history.
OF_EVENTS = {"item_ids", "timestamps", "weights", "is_seen"}
_OPTIONAL = ("also_seen", *WEIGHED_COLUMNS)
# Users read at a time to find one.
_USERS_PER_BATCH = 10_000


def no_items(n_users: int, list_type: pa.DataType) -> pa.ListArray:
    """Return one empty list per user."""
    return pa.ListArray.from_arrays(pa.array(np.zeros(n_users + 1, np.int32)), pa.array([], list_type.value_type))


def filter_lists(lists: pa.ListArray, is_kept: Bools) -> pa.ListArray:
    """Keep some values of lists; is_kept: (values of all lists,) bool."""
    ends = np.cumsum(lists.value_lengths().to_numpy())
    offsets = np.concatenate([[0], np.cumsum(is_kept)])[np.concatenate([[0], ends])]
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), lists.flatten().filter(pa.array(is_kept)))


@dataclass(frozen=True)
class Sequences:
    """A sequences table on disk whose columns and types satisfy the contract.

    schema: with the WEIGHED_COLUMNS that the file has. columns: columns of the schema that the file has; only also_seen
    may be missing. file: opened once and read from then on, even if another file takes its name.
    """

    path: Path
    schema: pa.Schema
    n_users: int
    columns: list[str]
    file: pa.NativeFile = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[Callable[[Path], "Sequences"], tuple[Path]]:
        """Pickle the path: another process opens the file again."""
        return open_sequences, (self.path.absolute(),)

    @property
    def user_type(self) -> pa.DataType:
        """The type of user ids: int64 or string."""
        return self.schema.field("user_id").type

    @property
    def item_type(self) -> pa.DataType:
        """The type of item ids: int64 or string."""
        return self.schema.field("item_ids").type.value_type

    def batches(self, n_users: int) -> Iterator[pa.RecordBatch]:
        """Yield the table in batches of up to `n_users` rows.

        Raises InputError for nulls, lists of unequal length, histories that are not in time order, and weights that are
        not above 0.
        """
        try:
            for batch in parquet_of(self.file).iter_batches(n_users, columns=self.columns):
                yield checked_batch(batch, self.schema, str(self.path))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: {one_line(error)}") from error

    def check_same(self) -> None:
        """Raise InputError if the file was replaced or changed: DuckDB opens it again by its name."""
        opened = os.fstat(self.file.fileno())
        try:
            named = self.path.stat()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
        identity = "st_dev", "st_ino", "st_size", "st_mtime_ns"
        if any(getattr(opened, name) != getattr(named, name) for name in identity):
            raise InputError(f"{self.path}: was replaced while it was read. Start again")


def checked_batch(batch: pa.RecordBatch, schema: pa.Schema, where: str) -> pa.RecordBatch:
    """Return a batch of sequences with the columns and types of a schema; where: the table, for errors.

    also_seen may be missing. Raises InputError for another missing column, ids of another type, nulls, lists of
    unequal length, histories that are not in time order, and weights that are not above 0.
    """
    if "also_seen" not in batch.schema.names:
        batch = batch.append_column("also_seen", no_items(len(batch), schema.field("also_seen").type))
    try:
        selected = batch.select(schema.names)
        _check_nulls(selected, where)
        checked = selected.cast(schema)
    except (KeyError, pa.ArrowException) as error:
        raise InputError(f"{where}: {one_line(error)}") from error
    _check_histories(checked, where)
    return checked


def read_user(sequences: Sequences, user: str) -> pa.RecordBatch:
    """Return the row of one user; ids are compared without the blanks around them.

    Raises ConfigError if the user is missing, InputError as `Sequences.batches`.
    """
    row = find_user(sequences, user)
    if row is None:
        raise ConfigError(f"--user {user}: {sequences.path} has no such user")
    return row


def find_user(sequences: Sequences, user: str) -> pa.RecordBatch | None:
    """Return the row of one user as `read_user` does; None if the user is missing.

    Of the histories only the row group of the user is read, some users at a time.
    """
    wanted = without_blanks(pa.array([user]))[0]
    try:
        file = parquet_of(sequences.file)
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["user_id"])["user_id"]
            if not _is_user(ids, wanted).any():
                continue
            for batch in file.iter_batches(_USERS_PER_BATCH, row_groups=[group], columns=sequences.columns):
                is_wanted = _is_user(batch["user_id"], wanted)
                if is_wanted.any():
                    return checked_batch(batch.filter(pa.array(is_wanted)), sequences.schema, str(sequences.path))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{sequences.path}: {one_line(error)}") from error
    return None


def _is_user(ids: pa.Array | pa.ChunkedArray, wanted: pa.Scalar) -> Bools:
    is_same = pc.fill_null(pc.equal(without_blanks(ids.cast(pa.string())), wanted), False)
    is_user: Bools = is_same.to_numpy(zero_copy_only=False)
    return is_user


def open_sequences(path: Path) -> Sequences:
    """Open a sequences table.

    Raises InputError if the file is missing, not Parquet, damaged or empty, if a user has several rows, or if a column
    is missing or not of the contract's type.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Run batchrec build-sequences, or pass --sequences FILE")
    try:
        opened = open_parquet(path)
        file = parquet_of(opened)
    except pa.ArrowException as error:
        raise InputError(
            f"{path}: not a Parquet file: {one_line(error)} Pass a file of batchrec build-sequences, which reads logs"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}. Run batchrec build-sequences again") from error
    file_schema = file.schema_arrow
    for name in ("user_id", "item_ids", "timestamps", *_OPTIONAL):
        times = file_schema.names.count(name)
        # Tables of earlier versions of the contract, and tables that people write, may lack them.
        if times != 1 and (times > 1 or name not in _OPTIONAL):
            problem = "no column" if times == 0 else f"{times} columns"
            raise InputError(f"{path}: {problem} {name!r}; found {', '.join(file_schema.names)}")
    if not is_list(file_schema.field("item_ids").type) or not is_list(file_schema.field("timestamps").type):
        raise InputError(f"{path}: columns 'item_ids' and 'timestamps' must be lists; found {file_schema.types}")
    if file.metadata.num_rows == 0:
        raise InputError(f"{path}: has no users")
    schema = sequences_schema(
        id_type(file_schema.field("user_id").type, "user_id", str(path)),
        id_type(file_schema.field("item_ids").type.value_type, "item_ids", str(path)),
        [name for name in WEIGHED_COLUMNS if name in file_schema.names],
    )
    _check_lists(file_schema, schema, path)
    columns = [name for name in schema.names if name in file_schema.names]
    table = Sequences(path, schema, file.metadata.num_rows, columns, opened)
    try:
        with connect() as con:
            repeated = select(con, "tables/repeated_users", path=literal(path)).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    if repeated:
        raise InputError(f"{path}: user {repeated[0][0]} has {repeated[0][1]} rows; expected one row per user")
    table.check_same()
    return table


def _check_lists(file_schema: pa.Schema, schema: pa.Schema, path: Path) -> None:
    """Raise InputError if an optional column exists and has no lists, or lists of another type."""
    for name in set(_OPTIONAL) & set(file_schema.names):
        type_, wanted = file_schema.field(name).type, schema.field(name).type.value_type
        # If all lists are empty, the values may have no type.
        if is_list(type_) and pa.types.is_null(type_.value_type):
            continue
        if is_list(type_) and name in {"also_seen", "disliked"}:
            fits = id_type(type_.value_type, name, str(path)) == wanted
        else:
            fits = is_list(type_) and _kind(type_.value_type) == _kind(wanted)
        if not fits:
            like = ", like 'item_ids'" if name in {"also_seen", "disliked"} else ""
            raise InputError(f"{path}: column {name!r} is {type_}; expected a list of {wanted}{like}")


def _kind(type_: pa.DataType) -> str:
    """Return number or bool, or any other type's name."""
    is_number = pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_)
    return "number" if is_number else str(type_)


def _check_nulls(batch: pa.RecordBatch, where: str) -> None:
    for column in batch.schema.names:
        values = batch[column]
        nulls = values.null_count + (values.flatten().null_count if is_list(values.type) else 0)
        if nulls:
            raise InputError(f"{where}: {nulls} null(s) in column {column!r}; expected none")


def _check_histories(batch: pa.RecordBatch, where: str) -> None:
    lengths = pc.list_value_length(batch["item_ids"])
    moments = batch["timestamps"].flatten()
    for name in sorted(OF_EVENTS & set(batch.schema.names)):
        unequal = pc.filter(batch["user_id"], pc.not_equal(lengths, pc.list_value_length(batch[name])))
        if len(unequal):
            raise InputError(f"{where}: user {unequal[0]}: item_ids and {name} are of unequal length")
    if "weights" in batch.schema.names:
        weights = batch["weights"].flatten().to_numpy()
        if not (np.isfinite(weights) & (weights > 0)).all():
            raise InputError(f"{where}: column 'weights' holds {weights.min():g}; expected finite numbers above 0")
    backwards = moments.to_numpy()[1:] < moments.to_numpy()[:-1]
    ends = np.cumsum(lengths.to_numpy(), dtype=np.int64)
    # Between the last event of one history and the first of the next, time may go back.
    backwards[ends[(ends > 0) & (ends < len(moments))] - 1] = False
    if backwards.any():
        user = batch["user_id"][int(np.searchsorted(ends, backwards.argmax(), side="right"))]
        raise InputError(f"{where}: user {user}: the history is not in time order, oldest first")
