"""Parquet files out of batches: written while the next batch is made, visible only once they are whole."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import duckdb
import pyarrow as pa

from batchrec.system.atomic import replacing
from batchrec.tables.schemas import is_list
from batchrec.tables.sealed_parquet import sealed_writer

# Numeric columns whose values hardly repeat, or come in runs or cycles that zstd compresses as well. A dictionary would
# take more time and save no space.
_WITHOUT_DICTIONARY = {"user_id", "timestamps", "rank", "score", "history_digest", "position"}


def write_parquet(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    out: Path,
    check: Callable[[Path], None] | None = None,
    metadata: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """Write the batches to the file `out`, one row group each. The next batch is made while one is written.

    check: called with the finished file before it is renamed to `out`. If it raises, `out` stays as it was.
    metadata: called after the last batch; added to the file's metadata.
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
            writer.add_key_value_metadata(dict(metadata()))
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
            # An unfinished generator stops its own threads now, not when Python collects it.
            pool.shutdown(cancel_futures=True)
            # After a signal during the start of its thread, the pool does not know the thread and does not wait for it.
            with at_work:
                if isinstance(batches, Generator):
                    batches.close()


def cast_batches(rows: duckdb.DuckDBPyRelation, schema: pa.Schema, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query in batches of up to `n_rows`, with the columns and types of a contract."""
    for batch in rows.to_arrow_reader(n_rows):
        yield batch.select(schema.names).cast(schema)
