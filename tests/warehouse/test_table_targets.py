"""What holds for every target that is a table: Delta in local files and on S3, Iceberg, Postgres."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batchrec.cli import main
from batchrec.cli.commands import cli
from batchrec.errors import ConfigError
from batchrec.targets import PublishedTable, Target
from tests.support.recs import recs_rows, write_recs
from tests.warehouse.table_targets import (
    TableTarget,
    day,
    delta_target,
    iceberg_target,
    nested,
    postgres_target,
    read_delta,
    rows_of,
)


@pytest.fixture(params=["delta", "delta+s3", "iceberg", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TableTarget:
    if request.param == "iceberg":
        return iceberg_target(request.getfixturevalue("iceberg"))
    if request.param == "postgres":
        return postgres_target(request.getfixturevalue("postgres"))
    pytest.importorskip("deltalake", reason="the warehouse extra is not installed")
    if request.param == "delta":
        return delta_target(tmp_path / "lake of recs")
    uri = request.getfixturevalue("s3") + "/lake/recs"
    return TableTarget(f"delta+{uri}", lambda: read_delta(uri))


def table_of(folder: Path, number: int, lists: dict[Any, list[Any]], **options: Any) -> PublishedTable:
    """Write a table of a run date."""
    rows = recs_rows(lists, model_id=f"m{number}", **options)
    return write_recs(folder / f"recs-{number}-{len(rows)}.parquet", rows, day(number), run_id=f"r{number}")


def publish(target: Target, *tables: PublishedTable) -> None:
    for table in tables:
        target.check_writable()
        with target.replacing(table):
            pass


def test_each_run_date_has_its_rows(store: TableTarget, tmp_path: Path) -> None:
    first = table_of(tmp_path, 1, {"ann": ["x", "y"], "bob": ["y"]})
    second = table_of(tmp_path, 2, {"ann": ["z"], "cem": ["x", "z", "y"]})
    target = store.open()
    assert target.is_dated
    assert target.sha256() is None
    publish(target, first, second)
    assert store.rows() == rows_of(first, second)
    assert target.sha256() == second.sha256


def test_a_run_date_that_is_published_again_is_replaced(store: TableTarget, tmp_path: Path) -> None:
    first, second = table_of(tmp_path, 1, {1: [5, 6], 2: [6]}), table_of(tmp_path, 2, {1: [7]})
    again = table_of(tmp_path, 1, {1: [6, 5, 8], 3: [5]})
    target = store.open()
    publish(target, first, second, again, again)
    assert store.rows() == rows_of(again, second)
    assert target.sha256() == second.sha256


def test_rolling_back_removes_later_run_dates(store: TableTarget, tmp_path: Path) -> None:
    tables = [table_of(tmp_path, number, {1: [number, 9], 2: [9]}) for number in (1, 2, 3, 4)]
    target = store.open()
    publish(target, *tables)
    back = replace(tables[1], run_id="again")
    with target.rolling_back(back):
        assert store.rows() == rows_of(*tables)
    assert store.rows() == rows_of(*tables[:2])
    assert target.sha256() == tables[1].sha256


def test_an_error_in_the_block_leaves_the_table(store: TableTarget, tmp_path: Path) -> None:
    first = table_of(tmp_path, 1, {1: [5, 6]})
    target = store.open()
    publish(target, first)
    with pytest.raises(RuntimeError, match="night"), target.replacing(table_of(tmp_path, 1, {1: [7]})):
        raise RuntimeError("the night's folder could not be written")
    assert store.rows() == rows_of(first)
    assert target.sha256() == first.sha256


def test_the_nested_layout_has_one_row_per_user(store: TableTarget, tmp_path: Path) -> None:
    lists = {f"user {number:03}": [f"item {item}" for item in range(1 + number % 4)] for number in range(40)}
    first, second = (table_of(tmp_path, number, lists, with_titles=True) for number in (1, 2))
    target = store.open("nested")
    publish(target, first, second)
    assert store.rows() == nested(rows_of(first, second))
    with target.rolling_back(first):
        pass
    assert store.rows() == nested(rows_of(first))


def test_rows_of_unordered_users_are_ordered(store: TableTarget, tmp_path: Path) -> None:
    table = table_of(tmp_path, 1, {user: [1, 2, 3] for user in (5, 3, 9, 1, 7)})
    publish(store.open(), table)
    assert store.rows() == rows_of(table)


def test_a_table_without_rows_replaces_a_run_date(store: TableTarget, tmp_path: Path) -> None:
    first = table_of(tmp_path, 1, {1: [5, 6]})
    target = store.open()
    publish(target, first, table_of(tmp_path, 2, {1: [6]}), table_of(tmp_path, 2, {}))
    assert store.rows() == rows_of(first)


def test_a_table_of_another_layout_is_named_with_its_columns(store: TableTarget, tmp_path: Path) -> None:
    first = table_of(tmp_path, 1, {1: [5, 6]})
    publish(store.open(), first)
    with pytest.raises(ConfigError, match=r"columns user_id, rank, .*expected .*recommendations.*--layout nested"):
        store.open("nested").check_writable()
    assert store.rows() == rows_of(first)


def test_a_table_of_other_types_is_named_with_them(store: TableTarget, tmp_path: Path) -> None:
    first = table_of(tmp_path, 1, {1: [5, 6]})
    target = store.open()
    publish(target, first)
    target.check_writable()
    other = table_of(tmp_path, 2, {"ann": [5]})
    with pytest.raises(ConfigError, match=r"user_id (int64|bigint).*expected.*user_id (string|text)"), target.replacing(
        other
    ):
        pass
    assert store.rows() == rows_of(first)


def test_a_writer_that_is_overtaken_replaces_what_the_other_wrote(store: TableTarget, tmp_path: Path) -> None:
    first, second, third = (table_of(tmp_path, 1, {1: list(range(n))}) for n in (1, 2, 3))
    target = store.open()
    publish(target, first)
    with target.replacing(second), store.open().replacing(third):
        pass
    assert store.rows() == rows_of(second)


def test_a_writer_of_another_date_is_not_disturbed(store: TableTarget, tmp_path: Path) -> None:
    first, second = table_of(tmp_path, 1, {1: [5]}), table_of(tmp_path, 2, {1: [6]})
    with store.open().replacing(first), store.open().replacing(second):
        pass
    assert store.rows() == rows_of(first, second)
