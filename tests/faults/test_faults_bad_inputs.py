"""Each bad input ends with its exit code and one line, and changes nothing that readers see."""

import re
import shlex
from pathlib import Path

import pytest

from tests.faults import counts
from tests.faults.bad_inputs import BAD_INPUTS, Bad
from tests.faults.shop import Shop, shop_after_first_night
from tests.support.models import run_cli

pytestmark = pytest.mark.slow


def seen_by_readers(shop: Path) -> dict[str, bytes | str]:
    """Return all files of a folder, except unfinished work, reports of failed nights, the lock and the metrics."""
    own = ("nights/.run_date=2", "nights/failed", "nights/.lock", "metrics.prom")
    return {
        name: str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "a folder"
        for path in shop.rglob("*")
        if not (name := str(path.relative_to(shop))).startswith(own)
    }


def temporaries(shop: Shop) -> list[str]:
    ends = (".tmp", ".new", ".probe", ".old", ".progress")
    return [str(path) for path in shop.folder.rglob("*") if path.name.endswith(ends)]


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=[bad.what for bad in BAD_INPUTS])
def test_a_bad_input_gives_its_exit_code_and_one_line(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = shop_after_first_night().copy(tmp_path / "shop")
    bad.change(shop.folder)
    monkeypatch.chdir(shop.folder)
    before = seen_by_readers(shop.folder)
    capsys.readouterr()
    code = run_cli(*shlex.split(bad.command))
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("batchrec: error:")]
    assert (code, len(errors)) == (bad.exit_code, 1), said
    assert re.search(bad.said, errors[0]), errors[0]
    assert "Traceback" not in said
    assert seen_by_readers(shop.folder) == before
    assert temporaries(shop) == []
    counts.add("bad inputs")
