"""A local folder as target."""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from batchrec.errors import ConfigError
from batchrec.system import atomic
from batchrec.targets import LocalFolder, open_target
from batchrec.targets.parts import PARTS
from tests.support.recs import NIGHT, moderate_recs, recs_rows, write_recs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "recs"


def publish(out: str | Path, n_items: int = 2) -> None:
    with open_target(str(out)).replacing(write_recs(Path("recs.parquet"), recs_rows({1: list(range(n_items))}))):
        pass


def test_duckdb_and_arrow_read_the_run_date_from_the_path(folder: Path) -> None:
    publish("recs/")
    rows = duckdb.execute("select run_date, user_id, rank from read_parquet('recs/*/*.parquet')").fetchall()
    assert rows == [(NIGHT, 1, 1), (NIGHT, 1, 2)]
    table = pyarrow.dataset.dataset(folder, partitioning="hive").to_table()
    assert table["run_date"].to_pylist() == [str(NIGHT)] * 2


def test_looking_a_user_up_reads_one_row_group(folder: Path) -> None:
    with open_target("recs/").replacing(moderate_recs(Path("recs.parquet"), 60_000, "m1")):
        pass
    (part,) = folder.rglob(PARTS)
    metadata = pq.read_metadata(part)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sizes == [250_000, 250_000, 100_000]
    spans = [metadata.row_group(number).column(0).statistics for number in range(metadata.num_row_groups)]
    for user in (0, 24_999, 25_000, 59_999):
        assert len([span for span in spans if span.min <= user <= span.max]) == 1
    assert (metadata.metadata[b"batchrec.run_id"], metadata.metadata[b"batchrec.model_id"]) == (b"run-m1", b"m1")


def test_a_folder_that_batchrec_made_needs_no_slash(folder: Path) -> None:
    folder.mkdir()
    assert not isinstance(open_target("recs"), LocalFolder)
    publish("recs/")
    assert isinstance(open_target("recs"), LocalFolder)


@pytest.mark.parametrize(
    "name", ["a.csv", "_delta_log/0.json", "run_date=2026-11-24/recs.parquet", "run_date=x/part-1.parquet"]
)
def test_a_folder_with_something_else_is_refused(folder: Path, name: str) -> None:
    publish("recs/")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(
        ConfigError, match=r"was not written by batchrec; expected only run_date=YYYY-MM-DD/part-\*.parq"
    ):
        open_target("recs/").check_writable()


def test_a_damaged_part_is_refused_by_its_name(folder: Path) -> None:
    publish("recs/")
    part = next(folder.glob("*/*.parquet"))
    part.write_bytes(b"junk")
    with pytest.raises(ConfigError, match=rf"{part.name}: is not a Parquet file: .*Move it away"):
        open_target("recs/").check_writable()


def test_a_file_and_a_missing_parent_are_refused(folder: Path) -> None:
    folder.touch()
    with pytest.raises(ConfigError, match=r"recs: is a file; expected a folder\. Pass another --out"):
        open_target("recs/").check_writable()
    with pytest.raises(ConfigError, match="folder missing does not exist"):
        open_target("missing/recs/").check_writable()


def test_a_mounted_disk_is_refused_and_a_folder_within_it_is_not() -> None:
    shared_memory = Path("/dev/shm")  # noqa: S108 - another disk is what it is for
    if not os.path.ismount(shared_memory):
        pytest.skip("no second disk exists")
    with tempfile.TemporaryDirectory(dir=shared_memory) as within:
        LocalFolder(Path(within) / "recs").check_writable()
        link = Path(within) / "link"
        (Path(within) / "recs").mkdir()
        link.symlink_to(Path(within) / "recs")
        LocalFolder(link).check_writable()


def test_a_link_to_a_folder_stays_a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to("elsewhere")
    publish("recs/")
    with open_target("recs/").rolling_back(write_recs(Path("recs.parquet"), recs_rows({7: [1]}))):
        pass
    assert folder.is_symlink()
    assert duckdb.execute("select user_id from read_parquet('elsewhere/*/*.parquet')").fetchall() == [(7,)]


def test_without_an_exchange_the_old_folder_is_moved_away_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    publish("recs/")
    publish("recs/", 3)
    with open_target("recs/").rolling_back(write_recs(Path("recs.parquet"), recs_rows({7: [1]}))):
        pass
    assert [path.name for path in folder.iterdir()] == [f"run_date={NIGHT}"]
    assert duckdb.execute("select user_id from read_parquet('recs/*/*.parquet')").fetchall() == [(7,)]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["recs", "recs.parquet"]


def test_files_have_the_modes_of_the_umask(folder: Path) -> None:
    previous = os.umask(0o027)
    try:
        publish("recs/")
    finally:
        os.umask(previous)
    modes = {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    assert modes == {0o750}
    assert {path.stat().st_mode & 0o777 for path in folder.rglob(PARTS)} == {0o640}


def test_a_damaged_file_of_an_earlier_date_does_not_keep_a_later_one_from_being_published(folder: Path) -> None:
    publish("recs/")
    (part,) = folder.glob(f"*/{PARTS}")
    part.write_bytes(b"no table")
    later = write_recs(Path("recs.parquet"), recs_rows({"a": [1]}), NIGHT + timedelta(days=1))
    with open_target("recs/").replacing(later):
        pass
    assert len(list(folder.glob(f"*/{PARTS}"))) == 2
