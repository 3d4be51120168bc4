"""Parquet files out of batches: written while the next batch is made, visible only once they are whole."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import duckdb
import pyarrow as pa

from batchrec.system.atomic import replacing
from batchrec.tables.schemas import is_list
from batchrec.tables.sealed_parquet import sealed_writer

# Columns of numbers of which hardly two are the same, or that come in runs or in turn, which zstd packs as well: a
# dictionary of them takes more time, and no less space, than they do.
_WITHOUT_DICTIONARY = {"user_id", "timestamps", "rank", "score", "history_digest"}


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
        f"{field.name}.list.element" if is_list(field.type) else field.name
        for field in schema
        if field.name not in _WITHOUT_DICTIONARY or pa.types.is_string(field.type)
    ]
    with replacing(out) as temporary:
        with sealed_writer(temporary, schema, use_dictionary=in_dictionaries) as writer:
            for batch in _made_ahead(iter(batches)):
                if len(batch):
                    writer.write_batch(batch)
        if check is not None:
            check(temporary)


def _made_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    at_work = Lock()

    def make() -> pa.RecordBatch | None:
        with at_work:
            return next(batches, None)

    with ThreadPoolExecutor(1) as pool:
        try:
            following = pool.submit(make)
            while (batch := following.result()) is not None:
                following = pool.submit(make)
                yield batch
        finally:
            # A generator that is left halfway stops its own threads now, not when Python comes to it.
            pool.shutdown(cancel_futures=True)
            # A signal that comes while the pool starts its thread leaves it one that it does not know and wait for.
            with at_work:
                if isinstance(batches, Generator):
                    batches.close()


def cast_batches(rows: duckdb.DuckDBPyRelation, schema: pa.Schema, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Stream the rows of a query in batches of up to `n_rows`, in the columns and types of a contract."""
    for batch in rows.to_arrow_reader(n_rows):
        yield batch.select(schema.names).cast(schema)
