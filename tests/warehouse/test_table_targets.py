"""Tables in stores pass the tests of every target, and those of tables that other people may have made or write to."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchrec.errors import ConfigError
from tests.support.recs import NIGHT, recs_rows, write_recs
from tests.support.target_contract import *  # noqa: F403
from tests.support.target_contract import LATER, ONE, TWO, as_float32, publish
from tests.support.targets import Place
from tests.warehouse.table_targets import TABLES, nested, table_place


@pytest.fixture(params=TABLES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake of recs").mkdir()
    return table_place(request.param, request)


@pytest.fixture
def dated(place: Place) -> Place:
    assert place.target.is_dated
    return place


@pytest.mark.parametrize("with_reasons", [False, True])
def test_nested_rows_with_titles_hold_the_same_as_long_ones(with_reasons: bool, place: Place) -> None:
    lists = {f"user {number:03}": [f"item {item}" for item in range(1 + number % 4)] for number in range(40)}
    table = recs_rows(lists, with_titles=True, with_reasons=with_reasons)
    publish(place, table)
    (long,) = place.read().values()
    assert long == pq.read_table("recs.parquet").to_pylist()
    nested_place = replace(place, out=place.out + "_nested", layout="nested")
    publish(nested_place, table)
    assert nested_place.read() == {str(NIGHT): nested(long)}


def test_a_table_of_another_layout_is_named_with_its_columns(place: Place) -> None:
    publish(place, ONE)
    with pytest.raises(ConfigError, match=r"columns user_id, rank, .*expected .*recommendations.*--layout nested"):
        replace(place, layout="nested").target.check_writable()
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_a_table_of_other_types_is_named_with_them(place: Place) -> None:
    publish(place, ONE)
    types = r"user_id (int64|bigint).*expected.*user_id (string|text)"
    with pytest.raises(ConfigError, match=types):
        publish(place, recs_rows({"ann": [5]}), LATER)
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_a_writer_that_is_overtaken_replaces_what_the_other_wrote(place: Place) -> None:
    publish(place, ONE[:1])
    first, second = write_recs(Path("first.parquet"), ONE), write_recs(Path("second.parquet"), TWO)
    with place.target.replacing(second), place.target.replacing(first):
        pass
    assert place.read() == {str(NIGHT): as_float32(TWO)}
    assert place.target.sha256() == second.sha256


def test_a_writer_of_another_date_is_not_disturbed(place: Place) -> None:
    first, second = write_recs(Path("first.parquet"), ONE), write_recs(Path("second.parquet"), TWO, LATER)
    with place.target.replacing(second), place.target.replacing(first):
        pass
    assert place.read() == {str(NIGHT): as_float32(ONE), str(LATER): as_float32(TWO)}
