"""run: files of earlier nights that are lost, damaged, abandoned or dated in the future do not fail later nights."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig, SequencesConfig
from batchrec.errors import ConfigError, GateError, InputError, ModelError, NothingToDo
from batchrec.model.directory import load_model
from batchrec.nightly import stages
from batchrec.nightly.archive import Archive
from batchrec.nightly.current_table import LocalTable
from batchrec.nightly.gates.output import measure_table
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import ModelFigures
from batchrec.nightly.run import plan, run
from batchrec.sequences.build import build_sequences
from batchrec.system.signals import Terminated, stopped_by_signals
from tests.support.models import names_in, run_cli, training_histories, write_sequences
from tests.support.nights import FIRST, Company, company
from tests.support.plain_rules import write_table


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    with company(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    shared_memory = Path("/dev/shm")  # noqa: S108 - another disk is what it is for
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk exists")
    with tempfile.TemporaryDirectory(dir=shared_memory) as folder:
        yield Path(folder)


def night(number: int) -> date:
    return FIRST + timedelta(days=number)


def test_models_and_the_table_may_lie_on_another_disk(shop: Company, other_disk: Path) -> None:
    (shop.folder / "models").symlink_to(other_disk)
    (shop.folder / "recs.parquet").symlink_to(other_disk / "recs.parquet")
    report = shop.run()
    assert shop.rows() == shop.rows(FIRST)
    assert report.model is not None
    assert names_in(other_disk) == {"recs.parquet", "current", report.model}
    shop.run(7)
    assert shop.rows() == shop.rows(night(7))
    assert shop.archive.roll_back() == FIRST
    assert shop.rows() == shop.rows(FIRST)


def test_a_full_disk_at_out_is_found_before_anything_is_switched(
    shop: Company, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop.folder / "recs.parquet").symlink_to(other_disk / "recs.parquet")
    shop.run()
    before = shop.state()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(ConfigError, match="No space left on device"):
            shop.run(7)
    assert shop.state() | {"models": ""} == before | {"models": ""}
    assert shop.run(7).resumed


@pytest.mark.parametrize("damage", ["{", '{"stages": {}}', None])
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
        shop.archive.roll_back(night(1))
    shop.run(1)
    assert shop.archive.is_intact(night(1))


def test_the_overlap_is_measured_against_the_last_intact_table(shop: Company) -> None:
    for number in range(2):
        shop.run(number)
    shop.archive.table(night(1)).write_bytes(b"PAR1")
    report = shop.run(2)
    assert report.users_carried_over == report.users
    assert {check["figure"]: check["value"] for check in report.checks}["overlap with last night"] == 1


@pytest.mark.parametrize("damage", [b"{}", b'{"contract_version": 2}'])
def test_a_model_in_use_that_cannot_be_loaded_is_a_reason_to_train(
    shop: Company, damage: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    in_use = shop.registry.current
    assert in_use is not None
    (in_use.folder / "manifest.json").write_bytes(damage)
    monkeypatch.chdir(shop.folder)
    assert run_cli("models", "list") == 0
    assert capsys.readouterr().out.startswith(f"* {in_use.name}  models/{in_use.name}")
    report = shop.run(1)
    assert report.trained_because is not None
    assert report.trained_because.startswith("the model in use cannot be used: ")
    assert shop.trainings[1].init_from is None
    assert report.model != in_use.name


def test_a_damaged_model_can_be_rolled_back(shop: Company) -> None:
    shop.run()
    shop.run(7)
    first, second = shop.registry.versions()
    (second.folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert shop.registry.before_current() == first


def test_training_does_not_start_from_a_model_that_knows_none_of_the_items(shop: Company) -> None:
    report = shop.run()
    assert report.models
    model_id = str(report.models[0]["model_id"])
    shop.figures[model_id] = ModelFigures(model_id, 0.2, 0.1, unknown_share=1.0)
    shop.run(1)
    assert [training.init_from for training in shop.trainings] == [None, None]


def test_repeating_an_earlier_night_does_not_switch_the_model_in_use(
    shop: Company, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        shop.run(number)
    in_use = shop.registry.current
    assert in_use is not None
    shop.figures[in_use.manifest.model_id] = ModelFigures(in_use.manifest.model_id, 0.05, 0.1, 0.0)
    before = shop.state()
    report = shop.run(1)
    assert report.trained_because is not None
    assert report.model != in_use.name
    after = shop.state()
    assert after[str(night(1))] != before[str(night(1))]
    assert {name for name in before if name != "models" and after[name] != before[name]} == {str(night(1))}
    assert "recs.parquet stays as it is, and so does the model in use: a later night is published" in caplog.text


def test_a_run_date_in_the_future_is_refused(shop: Company) -> None:
    today = datetime.now(UTC).date()
    for refused in (run, plan):
        with pytest.raises(ConfigError, match=r"the clock says .*\. Nights before .* could no longer be published"):
            refused(shop.jobs, shop.run_config, today + timedelta(days=2))
    assert names_in(shop.folder / "nights") == {".lock"}
    shop.run((today + timedelta(days=1) - FIRST).days)


def test_an_event_in_the_future_does_not_hide_that_the_log_is_old(shop: Company) -> None:
    with (shop.folder / "ratings.csv").open("a", encoding="utf-8", newline="") as file:
        file.write("1,1000,4102444800\r\n")
    with pytest.raises(GateError, match="days since the newest event is 108, expected at least 0 and at most 3"):
        shop.run(gate_max_age_days=3.0)


def test_a_log_with_only_future_events_is_not_published(shop: Company) -> None:
    with pytest.raises(GateError, match="days since the newest event is -"):
        shop.run(-1000, gate_max_age_days=3.0)


def test_a_log_that_no_longer_grows_is_logged_as_a_warning(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    shop.run()
    assert "the newest event is last night's" not in caplog.text
    shop.run(1)
    assert "the newest event is last night's" in caplog.text


@pytest.mark.parametrize(
    ("home", "name", "ends"), [(ModelRegistry, "use", "after"), (LocalTable, "switching_to", "before")]
)
def test_a_killed_publication_is_finished_first_whatever_the_log_is_now(
    shop: Company, monkeypatch: pytest.MonkeyPatch, home: Any, name: str, ends: str
) -> None:
    shop.run()
    shop.run_killed(monkeypatch, home, name, ends=ends, night=7)
    shop.write_log({1: [1000, 1001], 2: [1002, 1003]})
    report = shop.run(7)
    assert report.resumed
    assert report.trained_because is not None
    assert len(shop.trainings) == 2
    assert shop.rows() == shop.rows(night(7))
    assert report.model == getattr(shop.registry.current, "name", None)
    assert 'batchrec_ndcg_at_10{model="new"}' in (shop.folder / "metrics.prom").read_text()
    with pytest.raises(GateError, match="input gate"):
        shop.run(7)


@pytest.mark.parametrize("what", ["table", "report", "model"])
def test_files_of_a_killed_publication_are_not_used_if_they_have_changed(
    shop: Company, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    shop.run_killed(monkeypatch, ModelRegistry, "use")
    work, (model,) = shop.archive.work(FIRST), shop.registry.versions()
    files = {"table": work / "recs.parquet", "report": work / "report.json", "model": model.folder / "encoder.onnx"}
    files[what].write_bytes(files[what].read_bytes()[:-3] + b"x")
    assert shop.run().stages.keys() >= {"build-sequences", "train", "score"}
    assert shop.archive.is_intact(FIRST)
    assert len(shop.trainings) == 2


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


def test_a_damaged_model_of_the_same_night_is_replaced(shop: Company) -> None:
    shop.run()
    in_use = shop.registry.current
    assert in_use is not None
    (in_use.folder / "weights.safetensors").write_bytes(b"x")
    shop.trainings.clear()
    report = shop.run()
    assert report.model == in_use.name
    assert load_model(in_use.folder).manifest == in_use.manifest


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


def test_rollback_works_if_the_model_is_deleted_or_current_is_not_a_link(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.folder)
    shop.run()
    shop.run(7)
    first, second = shop.registry.versions()
    shutil.rmtree(second.folder)
    assert run_cli("models", "rollback") == 0
    assert shop.registry.current == first
    (shop.folder / "models/current").unlink()
    shutil.copytree(first.folder, shop.folder / "models/current")
    capsys.readouterr()
    assert run_cli("models", "rollback", first.name) == 4
    assert run_cli("models", "list") == 0
    said = capsys.readouterr()
    assert first.name in said.out
    assert "Move it away" in said.out
    assert "Move it away" in said.err
    shutil.rmtree(shop.folder / "models/current")
    assert run_cli("models", "rollback", first.name) == 0


def test_the_first_date_of_the_calendar_can_be_a_run_date(shop: Company) -> None:
    assert run(shop.jobs, shop.run_config, date.min).run_date == "0001-01-01"


def test_files_that_score_reads_are_checked_before_training(shop: Company) -> None:
    shop.scoring = replace(shop.scoring, block=str(shop.folder / "nowhere.csv"))
    with pytest.raises(InputError, match=r"nowhere\.csv: no file found.*--block"):
        shop.run()
    assert not shop.trainings


def test_an_output_that_is_also_an_input_is_refused(shop: Company) -> None:
    ratings = shop.folder / "ratings.csv"
    before = ratings.read_bytes()
    jobs = replace(shop.jobs, out=ratings)
    with pytest.raises(ConfigError, match=r"is also an input\. Pass another score --out"):
        run(jobs, shop.run_config, FIRST)
    for file in (ratings, shop.jobs.out):
        with pytest.raises(ConfigError, match=r"is also an input\. Pass another --metrics-file"):
            run(shop.jobs, shop.run_config, FIRST, file)
    with pytest.raises(ConfigError, match=r"is also an input\. Pass another --out"):
        build_sequences([str(shop.folder / "*.csv")], SequencesConfig(), ratings)
    assert ratings.read_bytes() == before


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


def test_work_on_an_unpublished_night_is_removed_when_a_later_night_starts(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateError):
        shop.run(gate_min_coverage=1.0)
    assert shop.archive.work(FIRST).exists()

    def checking(*_: Any) -> None:
        assert not shop.archive.work(FIRST).exists()
        raise InputError("seen")

    monkeypatch.setattr(stages, "build_sequences", checking)
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


def test_a_signal_is_reported_as_a_signal_not_as_the_error_it_causes(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated as error:
            raise RuntimeError("Query interrupted") from error

    monkeypatch.setattr(stages, "build_sequences", interrupted)
    with stopped_by_signals(), pytest.raises(Terminated) as raised:
        shop.run()
    kept = json.loads((shop.folder / f"nights/failed/{FIRST}.json").read_text())
    assert kept["failed"] == "ended by a signal"
    assert raised.value.report is not None
    assert "batchrec_exit_code 143.0" in (shop.folder / "metrics.prom").read_text()


def test_a_disk_error_within_a_stage_is_reported(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stages, "measure_table", refusing)
    with pytest.raises(ConfigError, match=r"nights: cannot be used: Input/output error") as raised:
        shop.run()
    assert raised.value.report is not None


def test_users_whose_ids_have_become_text_are_other_users(shop: Company) -> None:
    shop.run()
    shop.write_log({f"user {user}": items for user, items in training_histories().items()})
    with pytest.raises(GateError, match="id columns whose type has changed is 1, expected at most 0"):
        shop.run(1)
    with pytest.raises(GateError, match=r"overlap with last night is 0, expected at least 0\.02"):
        shop.run(1, gate_min_overlap=0.02, gate_new_id_types=True)
    shop.run(1, gate_new_id_types=True)


def test_rejected_rows_are_kept_with_the_night(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    with (shop.folder / "ratings.csv").open("a", encoding="utf-8", newline="") as file:
        file.write("1,1000,soon\r\n")
    monkeypatch.setattr(Company, "jobs", replace(shop.jobs, sequences=SequencesConfig(max_bad_rows="1")))
    report = shop.run()
    kept = shop.archive.table(FIRST).parent
    assert names_in(kept) == {"recs.parquet", "report.json", "sequences.rejects.csv"}
    assert "soon" in (kept / "sequences.rejects.csv").read_text(encoding="utf-8")
    assert not {"out", "rejects_file"} & report.stages["build-sequences"].keys()
    shop.write_log({user: items[:-1] for user, items in training_histories().items()})
    shop.run()
    assert names_in(kept) == {"recs.parquet", "report.json"}


def test_gates_measure_full_lists_and_coverage_by_the_allowed_items(
    shop: Company,
) -> None:
    allowed = write_table(shop.folder / "allowed.csv", "item_id", [(1003,), (1004,)])
    few = replace(shop.scoring, allow=str(allowed), keep_seen=True)
    shop.scoring = few
    report = shop.run(gate_min_full_lists=1.0, gate_min_coverage=1.0, gate_min_users=1.0)
    assert {row["item_id"] for row in shop.rows()} == {1003, 1004}
    assert report.stages["score"]["eligible_items"] == 2


def test_ids_that_differ_only_in_surrounding_blanks_are_measured_as_one(tmp_path: Path) -> None:
    # For u1: i2 was seen, i3 is listed twice, only i9 is right. Last night's lists overlap in i2 and in i9.
    sequences = write_sequences(
        tmp_path / "sequences.parquet", {"u1  ": ["i1  ", "i2  "], "u2": ["i4"]}, pa.string(), pa.string()
    )
    recs, previous = tmp_path / "recs.parquet", tmp_path / "previous.parquet"
    lists = {
        recs: {"u1": ["i2", "i3", "i3 ", "i9"], "u2": ["i9"]},
        previous: {"u1 ": ["i2\t", "i5"], "u2": ["i9  "]},
    }
    for file, users in lists.items():
        rows = [
            {"user_id": user, "item_id": item, "rank": rank, "score": 1.0}
            for user, items in users.items()
            for rank, item in enumerate(items, 1)
        ]
        pq.write_table(pa.Table.from_pylist(rows), file)
    figures = measure_table(recs, sequences, previous, ScoringConfig(top_k=4))
    assert (figures.faults["seen_items"], figures.faults["duplicates"]) == (1, 1)
    assert figures.overlap == pytest.approx((1 / 4 + 1) / 2)
    assert measure_table(recs, sequences, None, ScoringConfig(top_k=4, keep_seen=True)).faults["seen_items"] == 0


def test_users_without_a_history_do_not_count_as_covered_users(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [10], 2: [11], 3: [12]})
    rows = [{"user_id": user, "item_id": 10 + user, "rank": 1, "score": 1.0} for user in (1, 8, 9)]
    recs = tmp_path / "recs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), recs)
    figures = measure_table(recs, sequences, None, ScoringConfig(top_k=1))
    assert (figures.users, figures.users_with_full_list, figures.histories) == (1, 1, 3)
    listed = measure_table(recs, sequences, None, ScoringConfig(top_k=1, users="some.csv"))
    assert (listed.users, listed.users_with_full_list) == (3, 3)
