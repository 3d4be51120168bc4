"""Publishing five million rows to a table takes a bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.recs import NIGHT, moderate_recs
from tests.support.targets import Place
from tests.warehouse.table_targets import TABLES, table_place

# Five million rows of this table are 270 MB in memory.
N_USERS = 500_000


@pytest.fixture(scope="module")
def recs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moderate_recs(tmp_path_factory.mktemp("recs") / "recs.parquet", N_USERS, "m1").recs


@pytest.fixture(params=TABLES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake of recs").mkdir()
    return table_place(request.param, request)


@pytest.mark.parametrize("layout", ["long", "nested"])
def test_publishing_five_million_rows_takes_less_than_2500_mb(place: Place, layout: str, recs: Path) -> None:
    command = [sys.executable, "-m", "tests.warehouse.publishing_process", place.out, layout, str(recs), str(NIGHT)]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["peak_bytes"] < 2_500_000_000
