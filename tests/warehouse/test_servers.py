"""The stores of the tests can be reached as users reach them."""

import pytest


def test_a_file_can_be_written_to_s3_and_read_back(s3: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    file_system = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    file_system.pipe(f"{s3}/a/b.txt", b"text")
    assert file_system.cat(f"{s3}/a/b.txt") == b"text"


def test_postgres_answers(postgres: str) -> None:
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")

    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("select current_database()")
        assert cursor.fetchone()[0] == postgres.rpartition("/")[2]


def test_the_catalog_has_a_namespace(iceberg: str) -> None:
    catalogs = pytest.importorskip("pyiceberg.catalog")
    assert catalogs.load_catalog(iceberg.removeprefix("iceberg://")).list_namespaces() == [("shop",)]
