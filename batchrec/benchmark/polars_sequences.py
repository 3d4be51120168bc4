"""The histories of build-sequences by polars, to compare with."""

from importlib.util import find_spec
from pathlib import Path


def is_installed() -> bool:
    """Tell whether `pip install 'batchrec[bench]'` has brought polars."""
    return find_spec("polars") is not None


def polars_sequences(ratings: Path, out: Path) -> None:
    """Write histories as one writes it with polars: each item once, the newest time, sorted; nothing is checked."""
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
