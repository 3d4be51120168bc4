"""The histories of build-sequences computed with polars, for comparison."""

import os
from importlib.util import find_spec
from pathlib import Path

from batchrec.system.machine import n_cores


def is_installed() -> bool:
    """Return whether polars is installed: pip install 'batchrec[bench]' does that."""
    return find_spec("polars") is not None


def polars_sequences(ratings: Path, out: Path) -> None:
    """Write histories in idiomatic polars: each item once, with its newest time, sorted; without any checks."""
    # polars counts cores and ignores a container's quota.
    os.environ.setdefault("POLARS_MAX_THREADS", str(n_cores()))
    import polars as pl

    (
        pl.scan_csv(ratings)
        .group_by("userId", "movieId")
        .agg(pl.col("timestamp").max())
        .sort("userId", "timestamp", "movieId")
        .group_by("userId", maintain_order=True)
        .agg(pl.col("movieId").alias("item_ids"), pl.col("timestamp").alias("timestamps"))
        .collect()
        .write_parquet(out)
    )
