"""run: a kill, a rollback, another command or another user while a night is being published."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import ConfigError, GateError, NothingToDo
from batchrec.nightly import archive
from batchrec.nightly.archive import Archive
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import ModelFigures, read_report, report_to_json
from batchrec.nightly.rollback import roll_back
from batchrec.nightly.run import plan
from batchrec.system.atomic import replacing
from batchrec.targets import LocalFile
from tests.support.models import names_in, run_cli, training_histories
from tests.support.nights import FIRST, Company, metric, night
from tests.support.params import slow_except

HALF = dict(list(training_histories().items())[:20])


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


@pytest.mark.parametrize("lost", slow_except(["report", "model", "table"], "model"))
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


@pytest.mark.parametrize("is_settled", slow_except([False, True], False))
def test_restarting_a_killed_night_does_not_undo_a_rollback(
    shop: Company, monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    shop.run()
    home, name = (archive, "remove") if is_settled else (Archive, "clean_up")
    shop.run_killed(monkeypatch, home, name, night=7)
    assert (shop.archive.work(night(7)) / "report.json").exists() is not is_settled
    assert roll_back(shop.archive) == FIRST
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


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    shared_memory = Path("/dev/shm")  # noqa: S108 - another disk is what it is for
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk exists")
    with tempfile.TemporaryDirectory(dir=shared_memory) as folder:
        yield Path(folder)


def test_models_and_the_table_may_lie_on_another_disk(shop: Company, other_disk: Path) -> None:
    (shop.folder / "models").symlink_to(other_disk)
    (shop.folder / "recs.parquet").symlink_to(other_disk / "recs.parquet")
    report = shop.run()
    assert shop.rows() == shop.rows(FIRST)
    assert report.model is not None
    assert names_in(other_disk) == {"recs.parquet", "current", report.model}
    shop.run(7)
    assert shop.rows() == shop.rows(night(7))
    assert roll_back(shop.archive) == FIRST
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("home", "name", "ends"), [(ModelRegistry, "use", "after"), (LocalFile, "replacing", "before")]
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


@pytest.mark.parametrize("what", slow_except(["table", "report", "model"], "table"))
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
