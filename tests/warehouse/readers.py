"""How programs that do not know batchrec read each target."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

# (run date or "", model id) -> number of rows
Counts = dict[tuple[str, str], int]


def count(table: pa.Table, run_date: str | None = None) -> Counts:
    """Return the counts of a table with a column run_date, or of one run date."""
    dates = table["run_date"].to_pylist() if run_date is None else [run_date] * len(table)
    return dict(Counter(zip(map(str, dates), table["model_id"].to_pylist(), strict=True)))


def again_if(error: type[Exception], text: str, read: Callable[[], Counts]) -> Counts:
    """Read again while an error says that what was read is being replaced."""
    while True:
        try:
            return read()
        except error as raised:
            if text not in str(raised):
                raise
            time.sleep(0.001)


def read_folder(out: str) -> Counts:
    def read() -> Counts:
        with duckdb.connect() as con:
            query = "select run_date, model_id, count(*) from read_parquet($files) group by all"
            rows = con.execute(query, {"files": f"{out}/*/*.parquet"}).fetchall()
        return {(str(run_date), model_id): n_rows for run_date, model_id, n_rows in rows}

    # A file that was listed belongs to rows that were replaced since.
    return again_if(duckdb.IOException, "No such file", read)


def _file_system(out: str) -> Any:
    # One client for all polls: making one takes longer than reading.
    return fsspec.filesystem(out.partition("://")[0], use_listings_cache=False)


def read_object(out: str) -> Counts:
    return count(pq.read_table(pa.BufferReader(_file_system(out).cat_file(out)), columns=["model_id"]), "")


def read_store_folder(out: str) -> Counts:
    def read() -> Counts:
        files = _file_system(out)
        counts: Counts = {}
        for run_date, entry in json.loads(files.cat_file(out + "_manifest.json"))["run_dates"].items():
            for path in entry["files"]:
                table = pq.read_table(pa.BufferReader(files.cat_file(out + path)), columns=["model_id"])
                counts |= count(table, run_date)
        return counts

    # A file of the manifest belongs to rows that were replaced since.
    return again_if(FileNotFoundError, "", read)


def read_duckdb(out: str) -> Counts:
    def read() -> Counts:
        with duckdb.connect(out.removeprefix("duckdb://").partition("?")[0], read_only=True) as con:
            rows = con.execute("select run_date, model_id, count(*) from recs group by all").fetchall()
        return {(str(run_date), model_id): n_rows for run_date, model_id, n_rows in rows}

    # Another process writes.
    return again_if(duckdb.IOException, "Could not set lock", read)


def read_delta(out: str) -> Counts:
    from deltalake import DeltaTable

    uri = out.removeprefix("delta://").removeprefix("delta+")
    return count(DeltaTable(uri).to_pyarrow_table(columns=["run_date", "model_id"]))


def read_iceberg(out: str) -> Counts:
    from pyiceberg.catalog import load_catalog

    catalog, _, name = out.removeprefix("iceberg://").partition("/")
    scan = load_catalog(catalog).load_table(name).scan(selected_fields=("run_date", "model_id"))
    return count(scan.to_arrow())


def read_postgres(out: str) -> Counts:
    from adbc_driver_postgresql import dbapi

    database, _, name = out.partition("?table=")
    with dbapi.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(f"select run_date, model_id, count(*) from {name} group by run_date, model_id")  # noqa: S608
        return {(str(run_date), model_id): n_rows for run_date, model_id, n_rows in cursor.fetchall()}


def leftovers(out: str) -> list[str]:
    """List what killed writers have left in this folder, and in the folder of a store."""
    names = [path.name for path in Path().iterdir() if path.name.startswith(".")]
    if not out.startswith("s3://"):
        return names
    files = _file_system(out)
    bucket = out.removeprefix("s3://").partition("/")[0]
    names += [upload["Key"] for upload in files.list_multipart_uploads(bucket)]
    if out.endswith("/"):
        manifest = json.loads(files.cat_file(out + "_manifest.json"))
        named = {path for entry in manifest["run_dates"].values() for path in entry["files"]}
        root = out.removeprefix("s3://")
        names += sorted({path.removeprefix(root) for path in files.find(root)} - named - {"_manifest.json"})
    return names
