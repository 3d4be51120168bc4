"""The limits of the machine: the minimum time that a stage needs, measured without the stage."""

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from batchrec.arrays import Longs
from batchrec.config import EncoderShape
from batchrec.model.directory import load_model
from batchrec.tables.queries import connect, literal, select

_MATRIX_SIZE, _PRODUCTS = 3072, 6


def scan(csv: Path) -> None:
    """Read and count every value of a CSV file with DuckDB."""
    with connect() as con:
        select(con, "benchmark/scan", path=literal(csv)).fetchall()


def copy(table: Path, out: Path) -> None:
    """Copy a Parquet table with pyarrow, one row group at a time."""
    file = pq.ParquetFile(table)
    with pq.ParquetWriter(out, file.schema_arrow, compression="zstd", write_page_checksum=True) as writer:
        for number in range(file.num_row_groups):
            writer.write_table(file.read_row_group(number))


def scoring_seconds(sequences: Path, model: Path) -> float:
    """Return the seconds that the arithmetic of scoring takes at the speed of numpy's BLAS on all cores."""
    lists = pq.read_table(sequences, columns=["item_ids"], page_checksum_verification=True)["item_ids"]
    lengths = np.concatenate([chunk.value_lengths().to_numpy() for chunk in lists.chunks]).astype(np.int64)
    manifest = load_model(model).manifest
    return scoring_flops(lengths, manifest.shape, manifest.n_items) / _flops_per_second()


def _flops_per_second() -> float:
    """Measure the speed of large products of float32 matrices."""
    matrix = np.random.default_rng(0).random((_MATRIX_SIZE, _MATRIX_SIZE), dtype=np.float32)
    seconds = []
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return 2 * _MATRIX_SIZE**3 / min(seconds)


def scoring_flops(lengths: Longs, shape: EncoderShape, n_items: int) -> float:
    """Return the floating-point operations for scoring histories of these lengths, without padding.

    A multiplication and an addition count as two. Except for the last place, the last block computes only keys and
    values.
    """
    is_masked = shape.objective == "masked"
    n, size = np.minimum(lengths + is_masked, shape.max_len), shape.hidden_size
    # A causal place attends to places up to its own.
    pairs = n * n if is_masked else n * (n + 1) / 2
    block = 24 * size**2 * n + 4 * size * pairs
    last_block = 4 * size**2 * n + 20 * size**2 + 4 * size * n
    flops: float = ((shape.n_layers - 1) * block + last_block + 2 * size * n_items).sum()
    return flops
