"""The tests that every target passes, for modules with the fixtures `place` (any Place) and `dated` (a dated one).

Both run in an empty folder.
"""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from batchrec.errors import ConfigError
from tests.support.recs import NIGHT, recs_rows, write_recs
from tests.support.targets import Place, Rows

LATER = NIGHT + timedelta(days=1)
ONE, TWO = recs_rows({1: [10, 11], 2: [12]}), recs_rows({1: [20], 3: [21, 22]}, model_id="m2")


def publish(place: Place, table: Rows, run_date: date = NIGHT) -> str:
    published = write_recs(Path("recs.parquet"), table, run_date)
    with place.target.replacing(published):
        pass
    return published.sha256


def as_float32(table: Rows) -> Rows:
    return [row | {"score": pytest.approx(row["score"])} for row in table]


def test_rows_are_published_once_the_block_ends(place: Place) -> None:
    place.target.check_writable()
    assert place.target.sha256() is None
    table = write_recs(Path("recs.parquet"), ONE)
    with place.target.replacing(table):
        if place.is_read_meanwhile:
            assert not place.read()
    assert [as_float32(ONE)] == list(place.read().values())
    assert place.target.sha256() == table.sha256
    place.target.sync()
    place.target.check_writable()


def test_publishing_a_date_again_replaces_its_rows(place: Place) -> None:
    publish(place, ONE)
    sha256 = publish(place, TWO)
    assert [as_float32(TWO)] == list(place.read().values())
    assert place.target.sha256() == sha256


def test_an_error_in_the_block_leaves_the_old_rows(place: Place) -> None:
    sha256 = publish(place, ONE)
    for method in (place.target.replacing, place.target.rolling_back):
        with pytest.raises(KeyError), method(write_recs(Path("recs.parquet"), TWO)):
            raise KeyError
        assert [as_float32(ONE)] == list(place.read().values())
        assert place.target.sha256() == sha256


def test_another_date_stays(dated: Place) -> None:
    first = publish(dated, ONE)
    second = publish(dated, TWO, LATER)
    assert dated.read() == {str(NIGHT): as_float32(ONE), str(LATER): as_float32(TWO)}
    assert dated.target.sha256() == second
    publish(dated, ONE[:1], NIGHT)
    assert dated.read() == {str(NIGHT): as_float32(ONE[:1]), str(LATER): as_float32(TWO)}
    assert dated.target.sha256() == second != first


def test_rolling_back_removes_later_dates(dated: Place) -> None:
    earlier = NIGHT - timedelta(days=1)
    for table, run_date in ((ONE[:1], earlier), (ONE, NIGHT), (TWO, LATER), (TWO, LATER + timedelta(days=5))):
        publish(dated, table, run_date)
    published = write_recs(Path("recs.parquet"), ONE, NIGHT)
    with dated.target.rolling_back(published):
        pass
    assert dated.read() == {str(earlier): as_float32(ONE[:1]), str(NIGHT): as_float32(ONE)}
    assert dated.target.sha256() == published.sha256


def test_a_table_without_rows_can_be_published(place: Place) -> None:
    publish(place, ONE)
    sha256 = publish(place, [])
    assert not any(place.read().values())
    assert place.target.sha256() == sha256


def test_rows_in_the_nested_layout_are_the_same(place: Place) -> None:
    place = replace(place, layout="nested")
    place.target.check_writable()
    sha256 = publish(place, TWO)
    (table,) = place.read().values()
    assert [(row["user_id"], row["model_id"]) for row in table] == [(1, "m2"), (3, "m2")]
    assert [[item["item_id"] for item in row["recommendations"]] for row in table] == [[20], [21, 22]]
    assert place.target.sha256() == sha256
    place.target.check_writable()


def test_rows_of_another_layout_are_refused_before_any_work(dated: Place) -> None:
    publish(dated, TWO)
    with pytest.raises(ConfigError, match=r"expected .*nested.*Pass another --out"):
        replace(dated, layout="nested").target.check_writable()


def test_ids_of_another_type_than_those_of_earlier_dates_are_refused(dated: Place) -> None:
    publish(dated, ONE)
    texts = write_recs(Path("recs.parquet"), recs_rows({"007": [5]}), LATER)
    said = r"user_id .*(int64|bigint|BIGINT).*[Pp]ass another"
    with pytest.raises(ConfigError, match=said):
        dated.target.check_table(texts)
    with pytest.raises(ConfigError, match=said), dated.target.replacing(texts):
        pass
    dated.target.check_table(write_recs(Path("recs.parquet"), TWO, LATER))
    assert dated.read() == {str(NIGHT): as_float32(ONE)}
