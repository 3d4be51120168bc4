"""Recs tables that no model made, to publish: drawn, or of a moderate size."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchrec.system.disk import file_sha256
from batchrec.tables.parquet import write_parquet
from batchrec.tables.schemas import REASON_COLUMNS, recs_schema
from batchrec.targets import PublishedTable

NIGHT = date(2026, 11, 24)


def recs_rows(
    lists: dict[Any, list[Any]], *, model_id: str = "m1", with_titles: bool = False, with_reasons: bool = False
) -> list[dict[str, Any]]:
    """Return the rows of a recs table: of each user the items, best first."""
    return [
        {"user_id": user, "rank": rank, "item_id": item, "score": 1 / rank, "source": "model", "model_id": model_id}
        | {"history_digest": hash(str(user)) % 1000}
        | ({"title": None if rank % 2 else f"title {item}"} if with_titles else {})
        | (dict(zip(REASON_COLUMNS, reasons(items[: rank % 3]), strict=True)) if with_reasons else {})
        for user, items in lists.items()
        for rank, item in enumerate(items, start=1)
    ]


def reasons(items: list[Any]) -> tuple[str | None, list[Any], list[float]]:
    """Return what a row names with --explain if some items are behind it."""
    return "encoder" if items else None, items, [0.5, 0.25][: len(items)]


def write_recs(
    path: Path, rows: list[dict[str, Any]], run_date: date = NIGHT, *, batch_rows: int = 7, run_id: str = "r1"
) -> PublishedTable:
    """Write the rows as a recs table in row groups of batch_rows, and return it as a night publishes it."""
    ids = [pa.string() if rows and isinstance(rows[0][name], str) else pa.int64() for name in ("user_id", "item_id")]
    has_titles, has_reasons = (bool(rows) and name in rows[0] for name in ("title", "carried_by"))
    schema = recs_schema(*ids, with_titles=has_titles, made_by={}, with_reasons=has_reasons)
    table = pa.Table.from_pylist(rows, schema)
    write_parquet(table.to_batches(batch_rows), schema, path)
    return PublishedTable(path, run_date, file_sha256(path), run_id, rows[0]["model_id"] if rows else "m1")


def moderate_recs(path: Path, n_users: int, model_id: str, run_date: date = NIGHT) -> PublishedTable:
    """Write ten random recommendations for each user, and return the table."""
    top_k, n_rows = 10, 10 * n_users
    generator = np.random.default_rng(n_users)
    schema = recs_schema(pa.int64(), pa.int64(), with_titles=False, made_by={})
    columns = {
        "user_id": pa.array(np.repeat(np.arange(n_users), top_k)),
        "rank": pa.array(np.tile(np.arange(1, top_k + 1, dtype=np.int32), n_users)),
        "item_id": pa.array(generator.integers(0, 50_000, n_rows)),
        "score": pa.array(generator.random(n_rows, np.float32)),
        "source": pa.repeat("model", n_rows),
        "model_id": pa.repeat(model_id, n_rows),
        "history_digest": pa.array(np.repeat(generator.integers(0, 2**62, n_users), top_k)),
    }
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    write_parquet(table.to_batches(50_000), schema, path)
    return PublishedTable(path, run_date, file_sha256(path), f"run-{model_id}", model_id)
