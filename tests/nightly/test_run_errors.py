"""run: errors of run dates, files, disks and signals, which leave the current table and the model as they were."""

import json
import os
import shutil
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import ConfigError, InputError
from batchrec.nightly import night as night_module
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.run import plan, run
from batchrec.scoring.score import score
from batchrec.system.signals import Terminated, stopped_by_signals
from tests.support.models import names_in, run_cli
from tests.support.nights import FIRST, Company


def test_a_run_date_in_the_future_is_refused(shop: Company) -> None:
    today = datetime.now(UTC).date()
    for refused in (run, plan):
        with pytest.raises(ConfigError, match=r"the clock says .*\. Nights before .* could no longer be published"):
            refused(shop.jobs, shop.run_config, today + timedelta(days=2))
    assert names_in(shop.folder / "nights") == {".lock"}
    shop.run((today + timedelta(days=1) - FIRST).days)


def test_files_that_score_reads_are_checked_before_training(shop: Company) -> None:
    shop.scoring = replace(shop.scoring, block=str(shop.folder / "nowhere.csv"))
    with pytest.raises(InputError, match=r"nowhere\.csv: no file found.*--block"):
        shop.run()
    assert not shop.trainings


def test_a_disk_error_is_one_line(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(self: ModelRegistry) -> None:
        raise PermissionError(13, "Permission denied", str(self.folder))

    monkeypatch.chdir(shop.folder)
    monkeypatch.setattr(ModelRegistry, "versions", refused)
    assert run_cli("models", "list") == 2
    assert capsys.readouterr().err.splitlines() == ["batchrec: error: models: cannot be used: Permission denied"]


def test_another_config_is_read_instead_of_a_broken_one(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    (shop.folder / "batchrec.toml").write_text("[", encoding="utf-8")
    (shop.folder / "other.toml").write_text("", encoding="utf-8")
    assert run_cli("run", "--dry-run") == 2
    assert run_cli("run", "--dry-run", "--config", "other.toml") == 0
    assert run_cli("doctor") == 2


def test_a_signal_is_reported_as_a_signal_not_as_the_error_it_causes(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated as error:
            raise RuntimeError("Query interrupted") from error

    monkeypatch.setattr(night_module, "build_sequences", interrupted)
    with stopped_by_signals(), pytest.raises(Terminated) as raised:
        shop.run()
    kept = json.loads((shop.folder / f"nights/failed/{FIRST}.json").read_text())
    assert kept["failed"] == "ended by a signal"
    assert raised.value.report is not None
    assert "batchrec_exit_code 143.0" in (shop.folder / "metrics.prom").read_text()


def test_a_disk_error_within_a_stage_is_reported(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(night_module, "measure_table", refusing)
    with pytest.raises(ConfigError, match=r"nights: cannot be used: Input/output error") as raised:
        shop.run()
    assert raised.value.report is not None


def test_histories_that_change_during_the_run_are_detected(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def tampering(sequences: Path, *rest: Any) -> Any:
        report = score(sequences, *rest)
        sequences.write_bytes(sequences.read_bytes() + b"x")
        return report

    monkeypatch.setattr(night_module, "score_file", tampering)
    with pytest.raises(InputError, match="changed during the run"):
        shop.run()


def test_a_clock_behind_a_published_night_is_refused(shop: Company) -> None:
    shop.run()
    ahead = datetime.now(UTC).date() + timedelta(days=10)
    shop.archive.table(FIRST).parent.rename(shop.archive.table(ahead).parent)
    before = shop.state()
    for refused in (run, plan):
        # Also with --run-date: the night would succeed but not become current.
        for asked_for in (None, FIRST, datetime.now(UTC).date()):
            with pytest.raises(
                ConfigError, match=rf"the clock says .*, but night {ahead} is .*move that night's folder"
            ):
                refused(shop.jobs, shop.run_config, asked_for)
    assert shop.state() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written_are_refused(shop: Company) -> None:
    (shop.folder / "models").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        shop.run()


def test_a_lost_log_leaves_the_table_as_it_was(shop: Company) -> None:
    shop.run()
    before = shop.state()
    (shop.folder / "ratings.csv").unlink()
    with pytest.raises(InputError, match=r"ratings\.csv"):
        shop.run(1)
    assert shop.state() == before
    shutil.rmtree(shop.folder / "models")
