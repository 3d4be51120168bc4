"""Targets that are tables, each with a reader of its own: deltalake and pyiceberg with pyarrow, and the program psql."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from batchrec.config import Layout
from batchrec.targets import PublishedTable, Target, open_target

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class TableTarget:
    """A table that does not exist yet: the --out that names it, and how somebody else reads its rows."""

    out: str
    read: Callable[[], Rows]

    def open(self, layout: Layout = "long") -> Target:
        return open_target(self.out, layout)

    def rows(self) -> Rows:
        """Return the rows, in order, with the run date as text."""
        rows = [row | {"run_date": str(row["run_date"])} for row in self.read()]
        return sorted(rows, key=lambda row: (row["run_date"], str(row["user_id"]), row.get("rank")))


def rows_of(*tables: PublishedTable) -> Rows:
    """Return the rows that the tables of some run dates have together, as TableTarget.rows does."""
    rows = [
        row | {"run_date": str(table.run_date)} for table in tables for row in pq.read_table(table.recs).to_pylist()
    ]
    return sorted(rows, key=lambda row: (row["run_date"], str(row["user_id"]), row["rank"]))


def nested(rows: Rows) -> Rows:
    """Return the rows of the layout nested that hold the same as those of the layout long."""
    of_user = ("user_id", "history_digest", "model_id", "run_date")
    users: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        item = {name: value for name, value in row.items() if name not in of_user}
        users.setdefault(tuple(row[name] for name in of_user), []).append(item)
    return [dict(zip(of_user, user, strict=True)) | {"recommendations": items} for user, items in users.items()]


def read_delta(uri: str) -> Rows:
    from deltalake import DeltaTable

    rows: Rows = DeltaTable(uri).to_pyarrow_table().to_pylist()
    return rows


def read_iceberg(name: str) -> Rows:
    from pyiceberg.catalog import load_catalog

    rows: Rows = load_catalog("lake").load_table(name).scan().to_arrow().to_pylist()
    return rows


def read_postgres(database: str, table: str) -> Rows:
    """Return the rows that psql prints, as JSON. A real has the digits that its 32 bits need."""
    lines = psql(database, f"select row_to_json(recs) from {table} as recs").splitlines()
    return [json.loads(line, parse_float=lambda digits: float(np.float32(digits))) for line in lines]


def psql(database: str, statement: str) -> str:
    """Return what the program psql prints for a statement: values only."""
    command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--command", statement]
    return subprocess.run([*command, database], check=True, capture_output=True, text=True, env=os.environ).stdout


def delta_target(folder: Path) -> TableTarget:
    return TableTarget(f"delta://{folder}", lambda: read_delta(str(folder)))


def iceberg_target(catalog: str) -> TableTarget:
    return TableTarget(f"{catalog}/shop.recs", lambda: read_iceberg("shop.recs"))


def postgres_target(database: str) -> TableTarget:
    return TableTarget(f"{database}?table=public.recs", lambda: read_postgres(database, "public.recs"))


def day(number: int) -> date:
    return date(2026, 11, number)
