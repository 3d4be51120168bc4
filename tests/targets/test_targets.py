"""The targets that need no server pass the tests of every target."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from tests.support.models import names_in
from tests.support.target_contract import *  # noqa: F403
from tests.support.targets import Place, read_duckdb, read_folder, read_store_folder

PLACES = [
    Place("recs/", read_folder),
    Place(f"memory://{uuid4().hex}/recs/", read_store_folder),
    Place("duckdb://recs.db?table=recs", read_duckdb, is_read_meanwhile=False),
]


@pytest.fixture(params=PLACES, ids=lambda place: str(place.out.partition(":")[0]))
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    yield request.param
    assert not [name for name in names_in(tmp_path) if name.endswith((".tmp", ".probe"))]
    if request.param.out.startswith("memory"):
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def dated(place: Place) -> Place:
    return place
