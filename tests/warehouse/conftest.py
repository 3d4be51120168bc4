"""Stores for the tests: an S3 bucket, a Postgres database, an Iceberg catalog. Each test finds them by environment.

Each test process starts its own servers. Without the packages of the warehouse extra all tests are skipped.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.warehouse.clusters import ray_cluster, spark_cluster
from tests.warehouse.servers import PostgresServer, postgres_programs, postgres_server, s3_server

# The temporary folder before a test sets its own, within that of pytest: only root may enter that one, and a second
# pytest sees to it while tests run.
_OUTSIDE = tempfile.gettempdir()


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    pytest.importorskip("moto", reason="the warehouse extra is not installed: run make test-warehouse")
    with s3_server() as environment:
        yield environment


@pytest.fixture
def s3(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new bucket, without a slash at its end."""
    boto3 = pytest.importorskip("boto3")

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresServer]:
    pytest.importorskip("adbc_driver_postgresql", reason="the warehouse extra is not installed")
    if postgres_programs() is None:
        pytest.skip("Postgres is not installed: the Debian package is postgresql")
    folder = Path(tempfile.mkdtemp(prefix="batchrec-postgres-", dir=_OUTSIDE))
    try:
        with postgres_server(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_cluster: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new, empty database, without its password, which PGPASSWORD holds."""
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")

    for name, value in postgres_cluster.environment.items():
        monkeypatch.setenv(name, value)
    name = f"db_{uuid4().hex[:12]}"
    with dbapi.connect(postgres_cluster.url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"create database {name}")
    monkeypatch.setenv("PGDATABASE", name)
    return postgres_cluster.url.rpartition("/")[0] + f"/{name}"


@pytest.fixture
def iceberg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new Iceberg catalog in local files with a namespace `shop`, without a slash at its end."""
    pyiceberg = pytest.importorskip("pyiceberg.catalog", reason="the warehouse extra is not installed")
    folder = tmp_path / "iceberg"
    folder.mkdir()
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", f"sqlite:///{folder}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", f"file://{folder}")
    # pyiceberg reads the environment when it is imported, which may have been long ago.
    monkeypatch.setattr(pyiceberg, "_ENV_CONFIG", pyiceberg.Config())
    pyiceberg.load_catalog("lake").create_namespace("shop")
    return "iceberg://lake"


@pytest.fixture(scope="session")
def ray() -> Iterator[str]:
    """Return the address of a Ray cluster with two workers, to which this process is connected."""
    with ray_cluster() as address:
        yield address


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """Return the active session of a Spark cluster with two workers."""
    if shutil.which("java") is None:
        pytest.skip("Java is not installed: Spark needs version 17 or newer")
    with spark_cluster() as session:
        yield session
