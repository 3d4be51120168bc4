"""Parquet in and out: sequences are checked as they stream; outputs appear whole or not at all."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrec.errors import ConfigError, InputError
from batchrec.queries import connect, literal, select
from batchrec.schemas import id_type, sequences_schema
from batchrec.temporaries import modes_by_umask, probe_of, put_on_disk, temporary_file

# Columns of numbers of which hardly two are the same, or that come in runs or in turn, which zstd packs as well: a
# dictionary of them takes more time, and no less space, than they do.
_WITHOUT_DICTIONARY = {"user_id", "timestamps", "rank", "score", "history_digest"}


def check_writable(out: Path, option: str = "--out") -> None:
    """Raise ConfigError where the file or folder `out` cannot be created, before any work is done."""
    probe = probe_of(out)
    try:
        out.exists()  # raises for a name that is too long
        has_folder = probe.parent.is_dir()
        if has_folder:
            probe.touch()
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}. Pass another {option}") from error
    if not has_folder:
        raise ConfigError(f"{out}: folder {out.parent} does not exist. Make it, or pass another {option}")


def check_no_input(out: Path, inputs: Iterable[str | Path], option: str = "--out") -> None:
    """Raise ConfigError where the file `out` is one of the inputs."""
    if out.resolve() in {Path(file).resolve() for file in inputs}:
        raise ConfigError(f"{out}: is read too. Pass another {option}")


def check_writable_file(out: Path, option: str = "--out") -> None:
    """Raise ConfigError where the file `out` cannot be created, before any work is done."""
    check_writable(out, option)
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder; expected the name of a file. Pass another {option}")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a path beside `out` to write to, renamed to `out` if the block ends without an error.

    A reader of `out` sees the old file or the new one, never half of it, and the temporary one is for its owner alone.
    Raises ConfigError where it cannot be written.
    """
    check_writable_file(out)
    try:
        mode, _ = modes_by_umask(out)
        with temporary_file(out) as temporary:
            yield temporary
            put_on_disk([temporary])
            temporary.chmod(mode)
            temporary.replace(os.path.realpath(out))
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error


def write_parquet(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    out: Path,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write the batches, a row group each, to the file `out`, the next one being made while one is written.

    check: is called with the finished file before it is renamed to `out`, which stays as it was if that raises.
    """
    in_dictionaries = [
        f"{field.name}.list.element" if _is_list(field.type) else field.name
        for field in schema
        if field.name not in _WITHOUT_DICTIONARY or pa.types.is_string(field.type)
    ]
    with replacing(out) as temporary:
        with (
            # An open file, for pyarrow takes a name with a colon for a URI.
            temporary.open("wb") as file,
            pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=in_dictionaries) as writer,
        ):
            for batch in _made_ahead(iter(batches)):
                if len(batch):
                    writer.write_batch(batch)
        if check is not None:
            check(temporary)


def _made_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with ThreadPoolExecutor(1) as pool:
        try:
            following = pool.submit(next, batches, None)
            while (batch := following.result()) is not None:
                following = pool.submit(next, batches, None)
                yield batch
        finally:
            # A generator that is left halfway stops its own threads now, not when Python comes to it.
            pool.shutdown(cancel_futures=True)
            if isinstance(batches, Generator):
                batches.close()


def cast_batches(rows: duckdb.DuckDBPyRelation, schema: pa.Schema, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Stream the rows of a query in batches of up to `n_rows`, in the columns and types of a contract."""
    for batch in rows.to_arrow_reader(n_rows):
        yield batch.select(schema.names).cast(schema)


@dataclass(frozen=True)
class Sequences:
    """A sequences table on disk whose columns and types hold to the contract."""

    path: Path
    schema: pa.Schema
    n_users: int

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
            for batch in pq.ParquetFile(self.path).iter_batches(n_users, columns=self.schema.names):
                _check_nulls(batch, self.path)
                checked = batch.select(self.schema.names).cast(self.schema)
                _check_histories(checked, self.path)
                yield checked
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: {error}") from error


def open_sequences(path: Path) -> Sequences:
    """Open a sequences table.

    Raises InputError where the file is missing, is not Parquet, is damaged or empty, repeats a user, or lacks a column
    or type of the contract.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Run batchrec build-sequences, or pass --sequences FILE")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from error
    found = file.schema_arrow
    for name in ("user_id", "item_ids", "timestamps"):
        times = found.names.count(name)
        if times != 1:
            problem = "no column" if times == 0 else f"{times} columns"
            raise InputError(f"{path}: {problem} {name!r}; found {', '.join(found.names)}")
    if not _is_list(found.field("item_ids").type) or not _is_list(found.field("timestamps").type):
        raise InputError(f"{path}: columns 'item_ids' and 'timestamps' must be lists; found {found.types}")
    if file.metadata.num_rows == 0:
        raise InputError(f"{path}: holds no users")
    schema = sequences_schema(
        id_type(found.field("user_id").type, "user_id", str(path)),
        id_type(found.field("item_ids").type.value_type, "item_ids", str(path)),
    )
    try:
        with connect() as con:
            repeated = select(con, "repeated_users", path=literal(path)).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if repeated:
        raise InputError(f"{path}: user {repeated[0][0]} has {repeated[0][1]} rows; expected one row a user")
    return Sequences(path, schema, file.metadata.num_rows)


def _is_list(found: pa.DataType) -> bool:
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found))


def _check_nulls(batch: pa.RecordBatch, path: Path) -> None:
    item_ids, timestamps = batch["item_ids"], batch["timestamps"]
    for column, nulls in (
        ("user_id", batch["user_id"].null_count),
        ("item_ids", item_ids.null_count + item_ids.flatten().null_count),
        ("timestamps", timestamps.null_count + timestamps.flatten().null_count),
    ):
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
