"""run: a kill, a rollback, another command or another user while a night is being published."""

import os
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import ConfigError, GateError, NothingToDo
from batchrec.model.directory import replacing_model
from batchrec.nightly import archive
from batchrec.nightly.archive import Archive
from batchrec.nightly.lock import locked
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import read_report, report_to_json
from batchrec.nightly.run import plan
from batchrec.system import temporaries
from batchrec.system.atomic import replacing
from tests.support.models import names_in, run_cli, training_histories
from tests.support.nights import FIRST, Company, company

HALF = dict(list(training_histories().items())[:20])


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    with company(tmp_path, monkeypatch) as made:
        yield made


def night(number: int) -> date:
    return FIRST + timedelta(days=number)


def metric(shop: Company, name: str) -> float:
    lines = (shop.folder / "metrics.prom").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"batchrec_{name} "))


WITHIN_PUBLISHING = [
    (ModelRegistry, "use", "before"),
    (ModelRegistry, "use", "after"),
    (Archive, "clean_up", "before"),
]


@pytest.mark.parametrize(("home", "name", "ends"), WITHIN_PUBLISHING)
def test_a_decided_night_is_finished_before_the_next_date_even_if_that_fails(
    shop: Company, monkeypatch: pytest.MonkeyPatch, home: Any, name: str, ends: str
) -> None:
    shop.run()
    shop.run_killed(monkeypatch, home, name, ends=ends, night=7)
    assert plan(shop.jobs, shop.run_config, night(8)).finishes_first == [str(night(7))]
    shop.write_log(HALF)
    with pytest.raises(GateError, match="rows read"):
        shop.run(8)
    assert shop.archive.dates() == [FIRST, night(7)]
    assert shop.archive.current_nights() == [night(7)]
    assert shop.rows()[0]["model_id"] == shop.manifest().model_id
    assert names_in(shop.folder / "nights/failed") == {f"{night(8)}.json"}
    assert not shop.archive.work(night(7)).exists()


def test_a_decided_night_is_finished_before_an_earlier_date_is_run(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    shop.run_killed(monkeypatch, ModelRegistry, "use", night=7)
    report = shop.run(3)
    assert report.run_date == str(night(3))
    assert shop.archive.dates() == [FIRST, night(3), night(7)]
    assert shop.archive.current_nights()[-1] == night(7)


@pytest.mark.parametrize("lost", ["report", "model", "table"])
def test_a_published_night_becomes_current_even_if_its_decision_is_damaged(
    shop: Company, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    shop.run()
    out = shop.folder / "recs.parquet"
    before = out.read_bytes()
    shop.run_killed(monkeypatch, Archive, "clean_up", night=7)
    # As if the run had been killed one step earlier.
    out.unlink()
    out.write_bytes(before)
    work, model = shop.archive.work(night(7)), shop.registry.current
    assert model is not None
    files = {"report": work / "report.json", "model": model.folder / "encoder.onnx", "table": work / "recs.parquet"}
    files[lost].unlink()
    files[lost].write_bytes(b"x")
    shop.write_log(HALF)
    with pytest.raises(GateError, match="rows read"):
        shop.run(8)
    assert shop.archive.current_nights() == [night(7)]
    assert shop.archive.decisions.dates() == []


@pytest.mark.parametrize("is_settled", [False, True])
def test_restarting_a_killed_night_does_not_undo_a_rollback(
    shop: Company, monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    shop.run()
    home, name = (archive, "remove") if is_settled else (Archive, "clean_up")
    shop.run_killed(monkeypatch, home, name, night=7)
    assert (shop.archive.work(night(7)) / "report.json").exists() is not is_settled
    assert shop.archive.roll_back() == FIRST
    with pytest.raises(NothingToDo, match="was rolled back and stays rolled back"):
        shop.run(7)
    assert shop.archive.current_nights() == [FIRST]
    # The next night is published as usual.
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(8)
    assert shop.archive.current_nights() == [night(8)]


def test_a_model_is_not_rolled_back_while_a_night_is_half_published(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.folder)
    shop.run()
    shop.run_killed(monkeypatch, ModelRegistry, "use", ends="after", night=7)
    assert run_cli("models", "rollback") == 2
    assert f"a run was killed while it published night {night(7)}. Start batchrec run" in capsys.readouterr().err
    shop.run(7)
    assert run_cli("models", "rollback") == 0


def test_a_replaced_table_at_out_is_not_taken_for_a_rollback(shop: Company) -> None:
    shop.run()
    first = shop.folder / "first.parquet"
    shutil.copyfile(shop.folder / "recs.parquet", first)
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(1)
    first.replace(shop.folder / "recs.parquet")
    shop.run(1)
    assert shop.archive.current_nights() == [night(1)]


def test_another_command_that_writes_to_out_does_not_break_the_publication(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    use, seen = ModelRegistry.use, []

    def beside_another(registry: ModelRegistry, version: Any) -> None:
        # As score --out recs.parquet does.
        with replacing(shop.folder / "recs.parquet") as temporary:
            temporary.write_bytes(b"by hand")
        seen.append((shop.folder / "recs.parquet").read_bytes())
        use(registry, version)

    monkeypatch.setattr(ModelRegistry, "use", beside_another)
    shop.run(7)
    assert seen == [b"by hand"]
    assert shop.archive.current_nights() == [night(7)]


def test_an_unfinished_copy_is_private_and_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, out = tmp_path / "table", tmp_path / "out"
    table.write_bytes(b"a table")
    seen: list[Any] = []
    copyfile: Any = shutil.copyfile

    def copying(source: Path, to: Path) -> None:
        copyfile(source, to)
        # The first thing that any other command does.
        temporaries._remove_dead(out)
        seen.append((stat.S_IMODE(to.stat().st_mode), to.exists()))

    def on_another_disk(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(shutil, "copyfile", copying)
    monkeypatch.setattr(os, "link", on_another_disk)
    with replacing(out, contents=table):
        pass
    assert seen == [(0o600, True)]
    assert out.read_bytes() == b"a table"
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    former = os.umask(0)
    os.umask(former)
    return former


def test_a_disk_error_while_linking_is_not_a_reason_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table").write_bytes(b"a table")

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    with (
        pytest.raises(ConfigError, match="Input/output error"),
        replacing(tmp_path / "out", contents=tmp_path / "table"),
    ):
        pass


def test_a_file_of_another_user_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, out = tmp_path / "table", tmp_path / "out"
    table.write_bytes(b"a table")
    monkeypatch.setattr(os, "geteuid", lambda: table.stat().st_uid + 1)
    with replacing(out, contents=table):
        pass
    assert not out.samefile(table)
    assert out.read_bytes() == b"a table"


@pytest.mark.parametrize(("folder", "lock"), [(0o755, 0o600), (0o775, 0o660), (0o2770, 0o660)])
def test_only_users_who_may_write_to_the_archive_can_hold_its_lock(tmp_path: Path, folder: int, lock: int) -> None:
    nights = tmp_path / "nights"
    nights.mkdir()
    nights.chmod(folder)
    with locked(nights, "fail"):
        assert stat.S_IMODE((nights / ".lock").stat().st_mode) == lock


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_lock_file_made_by_root_belongs_to_the_owner_of_the_archive(tmp_path: Path) -> None:
    nights = tmp_path / "nights"
    nights.mkdir()
    os.chown(nights, 12345, 12346)
    with locked(nights, "fail"):
        assert ((nights / ".lock").stat().st_uid, (nights / ".lock").stat().st_gid) == (12345, 12346)


def test_a_folder_with_neither_report_nor_table_is_not_a_night(shop: Company) -> None:
    today = datetime.now(UTC).date()
    (shop.folder / "nights/run_date=2999-01-01").mkdir(parents=True)
    shop.run()
    assert shop.archive.current_nights() == [FIRST]
    assert shop.archive.dates() == [FIRST]
    for name in ("report.json", "recs.parquet"):
        ahead = shop.folder / f"nights/run_date={today + timedelta(days=2)}"
        ahead.mkdir()
        (ahead / name).write_text("", encoding="utf-8")
        with pytest.raises(ConfigError, match=rf"night {today + timedelta(days=2)} is published already"):
            shop.run(1)
        assert metric(shop, "exit_code") == 2
        shutil.rmtree(ahead)
    shop.run(1)


def test_the_copy_of_a_night_under_another_date_is_not_that_night(shop: Company) -> None:
    shop.run()
    shop.run(1)
    folder = shop.archive.table(FIRST).parent
    shutil.copytree(folder, folder.with_name(f"run_date={night(3)}"))
    before = shop.jobs.out.read_bytes()
    with pytest.raises(ConfigError, match="is later than night 2024-03-03, and its report is"):
        shop.run(2)
    with pytest.raises(ConfigError, match="is not the table that was published"):
        shop.archive.roll_back(night(3))
    assert shop.jobs.out.read_bytes() == before
    shutil.rmtree(folder.with_name(f"run_date={night(3)}"))
    shop.run(2)
    assert shop.archive.current_nights()[-1] == night(2)


def test_the_metrics_say_whether_the_newest_night_is_current(shop: Company) -> None:
    shop.run()
    assert metric(shop, "out_is_newest") == 1
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(1)
    shop.archive.roll_back()
    with pytest.raises(NothingToDo):
        shop.run(1)
    assert metric(shop, "out_is_newest") == 0
    (shop.folder / "recs.parquet").write_bytes(b"x")
    with pytest.raises(GateError):
        shop.run(2, gate_min_coverage=1.0)
    assert metric(shop, "out_is_newest") == 0


def test_a_night_decided_by_a_killed_run_has_the_times_of_the_run_that_published_it(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run_killed(monkeypatch, ModelRegistry, "use")
    file = shop.archive.work(FIRST) / "report.json"
    decided = read_report(file, FIRST)
    assert decided is not None
    # As if decided long ago, by a long run.
    long_ago = decided | {"started": "2024-03-01T01:00:00+00:00", "finished": "2024-03-01T05:00:00+00:00"}
    file.write_text(report_to_json(long_ago | {"seconds": 14400.0}), encoding="utf-8")
    begun = datetime.now(UTC).replace(microsecond=0)
    report = shop.run()
    assert report.run_id == decided["run_id"]
    assert datetime.fromisoformat(report.started) >= begun
    published = shop.archive.report(FIRST)
    assert published is not None
    assert published["finished"] >= published["started"] >= begun.isoformat()
    assert metric(shop, "run_seconds") < 14400
    assert metric(shop, "last_success_timestamp_seconds") >= begun.timestamp()
    assert metric(shop, "last_run_timestamp_seconds") >= begun.timestamp()


@pytest.mark.parametrize("error", [KeyError("x"), IndexError("x"), ValueError("x"), OSError(5, "x")])
def test_an_error_after_publication_does_not_fail_the_night(
    shop: Company, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Archive, "prune", failing)
    monkeypatch.setattr("batchrec.nightly.run.write_metrics", failing)
    assert shop.run().failed is None


def test_a_replaced_folder_is_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def seen_fsync(opened: int) -> None:
        names = {path.stat().st_ino: path.name for path in (tmp_path, *tmp_path.rglob("*"))}
        name = names[os.fstat(opened).st_ino]
        steps.append("new" if name.endswith(".tmp") else name)
        fsync(opened)

    def seen_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    with replacing_model(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(b"w")
    assert steps == ["weights", "new", tmp_path.name, "rename", tmp_path.name]
