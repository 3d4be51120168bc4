"""Targets in use: their rows, read back as other programs read them, without batchrec."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow.parquet as pq

from batchrec.config import Layout
from batchrec.targets import Target, open_target

Rows = list[dict[str, Any]]


def read_folder(out: str) -> dict[str, Rows]:
    return {
        folder.name.removeprefix("run_date="): [row for part in sorted(folder.iterdir()) for row in read_file(part)]
        for folder in Path(out).glob("run_date=*")
    }


def read_file(file: Any) -> Rows:
    # Not the column of the folder's name.
    table: Rows = pq.ParquetFile(file).read().to_pylist()
    return table


def file_system(out: str) -> Any:
    return fsspec.filesystem(out.partition("://")[0], use_listings_cache=False, skip_instance_cache=True)


def read_object(out: str) -> dict[str, Rows]:
    files = file_system(out)
    if not files.exists(out):
        return {}
    with files.open(out) as file:
        return {"": read_file(file)}


def read_store_folder(out: str) -> dict[str, Rows]:
    files = file_system(out)
    if not files.exists(out + "_manifest.json"):
        return {}
    run_dates = json.loads(files.cat_file(out + "_manifest.json"))["run_dates"]
    tables: dict[str, Rows] = {}
    for run_date, entry in run_dates.items():
        tables[run_date] = []
        for path in entry["files"]:
            with files.open(out + path) as file:
                tables[run_date] += read_file(file)
        assert len(tables[run_date]) == entry["rows"]
    return tables


def read_duckdb(out: str) -> dict[str, Rows]:
    file = Path(out.removeprefix("duckdb://").partition("?")[0])
    if not file.exists():
        return {}
    with duckdb.connect(file, read_only=True) as con:
        try:
            table = con.sql("from recs order by rowid").to_arrow_table().to_pylist()
        except duckdb.CatalogException:
            return {}
    tables: dict[str, Rows] = {}
    for row in table:
        tables.setdefault(str(row.pop("run_date")), []).append(row)
    return tables


@dataclass(frozen=True)
class Place:
    """A target. read: returns its rows by run date, in their order; under "" if it is not dated."""

    out: str
    read_rows: Callable[[str], dict[str, Rows]]
    layout: Layout = "long"
    # A file of DuckDB cannot be read while another connection writes to it, one in memory appears when it is opened.
    is_read_meanwhile: bool = True

    @property
    def target(self) -> Target:
        return open_target(self.out, self.layout)

    def read(self) -> dict[str, Rows]:
        return self.read_rows(self.out)
