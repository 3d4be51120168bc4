"""The archive: pruning, and files of earlier nights that are lost, damaged or abandoned."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import ConfigError, GateError, InputError, ModelError, NothingToDo
from batchrec.nightly import night as night_module
from batchrec.nightly.archive import Archive
from batchrec.nightly.rollback import roll_back
from tests.support.models import names_in, training_histories
from tests.support.nights import FIRST, Company, later, metric, night
from tests.support.params import slow_except


@pytest.mark.slow
def test_old_nights_and_models_are_deleted_but_never_what_is_in_use(shop: Company) -> None:
    with pytest.raises(GateError):
        shop.run(0, gate_min_coverage=1.0)
    for number in range(0, 28, 7):
        shop.write_log(later(5 + number))
        shop.run(number + 1, keep=2, keep_models=1)
    assert names_in(shop.folder / "nights/failed") == set()
    assert shop.archive.dates() == [FIRST + timedelta(days=15), FIRST + timedelta(days=22)]
    assert len(shop.registry.versions()) == 1
    roll_back(shop.archive)
    shop.archive.prune(1, FIRST + timedelta(days=22))
    assert shop.archive.dates() == [FIRST + timedelta(days=15), FIRST + timedelta(days=22)]


@pytest.mark.slow
@pytest.mark.parametrize("damage", slow_except(["{", '{"stages": {}}', None], "{"))
def test_a_damaged_report_does_not_fail_later_nights(
    shop: Company, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        shop.run(number)
    file = shop.archive.table(night(1)).parent / "report.json"
    file.write_text(damage, encoding="utf-8") if damage is not None else file.unlink()
    shop.run(3)
    assert f"night {night(1)}: its report is lost or damaged, and is left out" in caplog.text
    assert "batchrec_last_success" in (shop.folder / "metrics.prom").read_text()
    assert night(1) in shop.archive.dates()
    with pytest.raises(ConfigError, match="is not the table that was published"):
        roll_back(shop.archive, night(1))
    shop.run(1)
    assert shop.archive.is_intact(night(1))


def test_the_overlap_is_measured_against_the_last_intact_table(shop: Company) -> None:
    for number in range(2):
        shop.run(number)
    shop.archive.table(night(1)).write_bytes(b"PAR1")
    report = shop.run(2)
    assert report.users_carried_over == report.users
    assert {check["figure"]: check["value"] for check in report.checks}["overlap with last night"] == 1


def test_files_of_earlier_nights_that_cannot_be_removed_are_only_logged(
    shop: Company, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    moved = shop.folder / "archive"
    shop.archive.table(FIRST).parent.rename(moved)
    shop.archive.table(FIRST).parent.symlink_to(moved)
    shop.archive.work(night(-1)).write_text("a file", encoding="utf-8")
    shop.write_log({user: items[:-1] for user, items in training_histories().items()})
    shop.run(1, keep=1)
    assert shop.archive.dates() == [night(1)]
    assert (moved / "recs.parquet").exists()
    assert names_in(shop.folder / "nights") == {".lock", f"run_date={night(1)}"}

    rmtree: Any = shutil.rmtree

    def refused(path: Path, **options: Any) -> None:
        if path == shop.archive.work(night(1)):
            raise PermissionError(13, "Permission denied", str(path))
        rmtree(path, **options)

    shop.archive.work(night(1)).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refused)
        shop.run(2)
    assert f"{shop.archive.work(night(1))}: cannot be removed: Permission denied" in caplog.text


def test_a_table_at_out_that_belongs_to_no_night_is_replaced_by_the_newest(shop: Company) -> None:
    shop.run()
    expected = shop.rows()
    out = shop.folder / "recs.parquet"
    out.unlink()
    out.write_bytes(b"junk")
    shop.run()
    assert shop.rows() == expected


def test_a_night_older_than_the_kept_ones_can_be_run(shop: Company) -> None:
    for number in (1, 2):
        shop.run(number, keep=2)
    shop.run(0, keep=2)
    assert shop.archive.dates() == [night(0), night(1), night(2)]


def test_folders_whose_names_are_not_dates_are_not_nights_or_models(shop: Company) -> None:
    (shop.folder / "nights/run_date=2024-02-30").mkdir(parents=True)
    (shop.folder / "models").mkdir()
    (shop.folder / "models/2024-13-01-abc").mkdir()
    (shop.folder / "models/2024-01-01-abc").symlink_to("nowhere")
    shop.run()
    assert shop.archive.dates() == [FIRST]
    assert len(shop.registry.versions()) == 1
    (shop.folder / "models/current").unlink()
    (shop.folder / "models/current").symlink_to("2024-13-01-abc")
    with pytest.raises(ModelError, match="links to 2024-13-01-abc, which is not a model in this folder"):
        shop.run(1)


def test_work_on_an_unpublished_night_is_removed_when_a_later_night_starts(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateError):
        shop.run(gate_min_coverage=1.0)
    assert shop.archive.work(FIRST).exists()

    def checking(*_: Any) -> None:
        assert not shop.archive.work(FIRST).exists()
        raise InputError("seen")

    monkeypatch.setattr(night_module, "build_sequences", checking)
    with pytest.raises(InputError, match="seen"):
        shop.run(1)


def test_a_published_night_does_not_fail_if_old_files_cannot_be_deleted(
    shop: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refusing(*_: Any) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Archive, "prune", refusing)
    assert shop.run().failed is None
    assert "Device or resource busy" in caplog.text
    assert "batchrec_exit_code 0.0" in (shop.folder / "metrics.prom").read_text()
    assert not (shop.folder / "nights/failed").exists()


@pytest.mark.slow
def test_the_report_of_a_failure_is_removed_when_there_is_nothing_to_do(shop: Company) -> None:
    shop.run()
    with pytest.raises(GateError):
        shop.run(gate_min_coverage=1.0)
    failed = shop.folder / f"nights/failed/{FIRST}.json"
    assert failed.exists()
    shop.run()
    with pytest.raises(NothingToDo):
        shop.run()
    assert not failed.exists()


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
    before = Path(shop.jobs.out).read_bytes()
    with pytest.raises(ConfigError, match="is later than night 2024-03-03, and its report is"):
        shop.run(2)
    with pytest.raises(ConfigError, match="is not the table that was published"):
        roll_back(shop.archive, night(3))
    assert Path(shop.jobs.out).read_bytes() == before
    shutil.rmtree(folder.with_name(f"run_date={night(3)}"))
    shop.run(2)
    assert shop.archive.current_nights()[-1] == night(2)
