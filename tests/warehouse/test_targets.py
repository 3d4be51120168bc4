"""Targets in real stores pass the tests of every target."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.target_contract import *  # noqa: F403
from tests.support.targets import Place, read_object, read_store_folder


@pytest.fixture(
    params=[Place("/recs.parquet", read_object), Place("/a/recs/", read_store_folder)], ids=["object", "folder"]
)
def place(request: pytest.FixtureRequest, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return replace(request.param, out=s3 + request.param.out)


@pytest.fixture
def dated(place: Place) -> Place:
    if not place.target.is_dated:
        pytest.skip("holds one table")
    return place
