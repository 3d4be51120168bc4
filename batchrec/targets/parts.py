"""Parquet files as warehouses like them: whole users per row group, with statistics; a few hundred MB per file."""

import re
import secrets
from collections.abc import Callable, Mapping
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

# A file ends with the row group that takes it past this size.
PART_BYTES = 256 << 20
# A part's path within the folder of a table. The name is new with each publication, so no reader mixes two.
PART_PATH = re.compile(r"run_date=(\d{4}-\d\d-\d\d)/part-[0-9a-f]{8}-\d{5}\.parquet")
PARTS = "part-*.parquet"


def write_parts(
    rows: pa.RecordBatchReader,
    metadata: Mapping[str, str],
    open_part: Callable[[str], IO[bytes]],
    part_bytes: int = PART_BYTES,
) -> dict[str, int]:
    """Write rows to one file or more, one row group per batch. Returns their names, each with its number of rows.

    metadata: written into each file. open_part: opens a new file of a name. part_bytes: minimum size of all files but
    the last.
    """
    token, written = secrets.token_hex(4), dict[str, int]()
    batches = iter(rows)
    batch = next(batches, None)
    # A table without rows is one file too, which holds the schema.
    while batch is not None or not written:
        name = f"part-{token}-{len(written):05}.parquet"
        written[name] = 0
        with open_part(name) as file, parquet_writer(file, rows.schema, metadata) as writer:
            while batch is not None and file.tell() < part_bytes:
                writer.write_batch(batch)
                written[name] += len(batch)
                batch = next(batches, None)
    return written


def parquet_writer(file: IO[bytes], schema: pa.Schema, metadata: Mapping[str, str]) -> pq.ParquetWriter:
    """Return a writer of Parquet into an open file, which it leaves open."""
    return pq.ParquetWriter(file, schema.with_metadata(dict(metadata)), compression="zstd", write_page_checksum=True)


def part_schema(file: object) -> pa.Schema | None:
    """Return the schema of a Parquet file, of which file is the path or an open file; None if it is damaged."""
    try:
        return pq.read_schema(file)
    except pa.ArrowException:
        return None


def recorded_sha256(file: object) -> str | None:
    """Return the SHA-256 that the metadata of a Parquet file record; None if it is none, or records none.

    file: a path or an open file.
    """
    schema = part_schema(file)
    sha256 = None if schema is None else (schema.metadata or {}).get(b"batchrec.sha256")
    return None if sha256 is None else sha256.decode()
