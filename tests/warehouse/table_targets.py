"""Tables in stores, read as others read them: Delta and Iceberg by their libraries and pyarrow, Postgres by psql."""

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.support.targets import Place, Rows

TABLES = ["delta", "delta+s3", "iceberg", "iceberg+s3", "postgres"]


def table_place(name: str, request: pytest.FixtureRequest) -> Place:
    """Return one of TABLES that does not exist yet; Delta in this folder, or in a store that a fixture starts."""
    if name.startswith("iceberg"):
        catalog = request.getfixturevalue("iceberg")
        if name == "iceberg+s3":
            use_s3_warehouse(request.getfixturevalue("s3"), request.getfixturevalue("monkeypatch"))
        return Place(f"{catalog}/shop.recs", read_iceberg)
    if name == "postgres":
        return Place(request.getfixturevalue("postgres") + "?table=public.recs", read_postgres)
    pytest.importorskip("deltalake", reason="the warehouse extra is not installed: run make test-warehouse")
    if name == "delta":
        return Place("delta://lake of recs/recs", read_delta)
    return Place(f"delta+{request.getfixturevalue('s3')}/lake/recs", read_delta)


def use_s3_warehouse(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the catalog of the fixture iceberg keep the files of new tables in a bucket."""
    from pyiceberg.catalog import load_catalog

    use_catalog(monkeypatch, "LAKE", WAREHOUSE=f"{bucket}/warehouse", S3__ENDPOINT=os.environ["AWS_ENDPOINT_URL"])
    # The namespace of the fixture has a place in local files.
    lake = load_catalog("lake")
    lake.drop_namespace("shop")
    lake.create_namespace("shop")


def use_catalog(monkeypatch: pytest.MonkeyPatch, name: str, **options: str) -> None:
    """Configure a catalog of pyiceberg by the environment."""
    from pyiceberg import catalog
    from pyiceberg.utils.config import Config

    for option, value in options.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__{name}__{option}", value)
    # pyiceberg reads the environment when it is imported.
    monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())


def read_delta(out: str) -> dict[str, Rows]:
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    uri = out.removeprefix("delta://").removeprefix("delta+")
    try:
        return by_date(DeltaTable(uri).to_pyarrow_table().to_pylist())
    except TableNotFoundError:
        return {}


def read_iceberg(out: str) -> dict[str, Rows]:
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchTableError

    catalog, _, name = out.removeprefix("iceberg://").partition("/")
    try:
        return by_date(load_catalog(catalog).load_table(name).scan().to_arrow().to_pylist())
    except NoSuchTableError:
        return {}


def read_postgres(out: str) -> dict[str, Rows]:
    """Return the rows that psql prints, as JSON. A real has the digits that its 32 bits need."""
    database, _, table = out.partition("?table=")
    if psql(database, f"select to_regclass('{table}') is null").strip() == "t":
        return {}
    lines = psql(database, f"select row_to_json(recs) from {table} as recs").splitlines()  # noqa: S608
    return by_date([json.loads(line, parse_float=lambda digits: float(np.float32(digits))) for line in lines])


def by_date(table: Rows) -> dict[str, Rows]:
    tables: dict[str, Rows] = {}
    for row in sorted(table, key=lambda row: (row.get("user_id", row.get("item_id")), row.get("rank"))):
        tables.setdefault(str(row.pop("run_date")), []).append(row)
    return tables


def psql(database: str, statement: str) -> str:
    """Return what the program psql prints for a statement: values only."""
    command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--command", statement]
    return subprocess.run([*command, database], check=True, capture_output=True, text=True, env=os.environ).stdout


def nested(table: Rows) -> Rows:
    """Return the rows of the layout nested that hold the same as those of the layout long."""
    of_user = ("user_id", "history_digest", "model_id")
    users: dict[tuple[Any, ...], Rows] = {}
    for row in table:
        item = {name: value for name, value in row.items() if name not in of_user}
        users.setdefault(tuple(row[name] for name in of_user), []).append(item)
    return [dict(zip(of_user, user, strict=True)) | {"recommendations": items} for user, items in users.items()]


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow beyond 64 KiB inside the block, as on a full disk: this applies to pytest's log too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_is_one_plain_line(message: str) -> None:
    assert "\n" not in message
    assert "\x1b" not in message
