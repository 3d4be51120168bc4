"""Parquet files of a table format such as Delta Lake: written first, made part of the table by one commit later."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

# Readers plan by file: many small ones are slow to list, and one large one is read by one task only.
FILE_BYTES = 256 << 20


@dataclass(frozen=True)
class DataFile:
    """A file that is written. name: without its folder."""

    name: str
    n_bytes: int
    metadata: pq.FileMetaData


def write_data_files(
    rows: pa.RecordBatchReader, create: Callable[[str], AbstractContextManager[Any]]
) -> list[DataFile]:
    """Write rows to new files of about FILE_BYTES, one row group per batch; create: open a new file of this name."""
    files: list[DataFile] = []
    publication = uuid4().hex
    batches = iter(rows)
    for first in batches:
        name = f"part-{len(files):05}-{publication}.parquet"
        metadata: list[pq.FileMetaData] = []
        with create(name) as file:
            with pq.ParquetWriter(file, rows.schema, compression="zstd", metadata_collector=metadata) as writer:
                writer.write_batch(first)
                while file.tell() < FILE_BYTES and (batch := next(batches, None)) is not None:
                    writer.write_batch(batch)
            n_bytes = file.tell()
        files.append(DataFile(name, n_bytes, metadata[0]))
    return files
