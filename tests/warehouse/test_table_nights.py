"""score, run and rollback with tables in stores as targets: the same as with those in files."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.nightly.test_dated_targets import (
    test_a_killed_publication_is_finished,
    test_an_earlier_night_replaces_only_its_own_date,
    test_each_night_adds_its_date_and_a_rollback_removes_it,
    test_rollback_and_score_take_target_and_layout_from_the_file,
)
from tests.support.models import run_cli, trained_model, training_sequences
from tests.support.nights import Company, company
from tests.support.targets import Place
from tests.warehouse.table_targets import TABLES, table_place

__all__ = [
    "test_a_killed_publication_is_finished",
    "test_an_earlier_night_replaces_only_its_own_date",
    "test_each_night_adds_its_date_and_a_rollback_removes_it",
    "test_rollback_and_score_take_target_and_layout_from_the_file",
]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    with company(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture(params=TABLES)
def dated(request: pytest.FixtureRequest, shop: Company, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(shop.folder)
    (shop.folder / "lake of recs").mkdir()
    place = table_place(request.param, request)
    shop.target = place.out
    return place


def test_score_publishes_the_same_rows_as_to_a_file(dated: Place) -> None:
    options = ["--sequences", training_sequences(), "--model", trained_model(), "--run-date", "2026-11-24"]
    assert run_cli("score", *options, "--out", "recs.parquet") == 0
    for _ in range(2):
        assert run_cli("score", *options, "--out", dated.out) == 0
        assert dated.read() == {"2026-11-24": pq.read_table("recs.parquet").to_pylist()}
