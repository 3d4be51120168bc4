"""run: what a night publishes, when it retrains, and that nothing changes if it fails."""

import errno
import json
import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchrec.config import SequencesConfig
from batchrec.errors import ConfigError, NothingToDo
from batchrec.nightly import night as night_module
from batchrec.nightly.archive import Archive
from batchrec.nightly.gates.model import HeldOutItems
from batchrec.nightly.publish_steps import Publication
from batchrec.nightly.registry import ModelRegistry, ModelVersion
from batchrec.nightly.report import ModelFigures
from batchrec.nightly.run import plan, run
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.system import disk
from tests.support.damage import flip_a_bit
from tests.support.models import names_in, training_histories
from tests.support.nights import FIRST, Company, ids, later, rows_of
from tests.support.params import slow_except


def all_scored(shop: Company, folder: Path) -> list[dict[str, Any]]:
    """Score all users of the current log with the model in use, independently of any night."""
    sequences, out = folder / "all-sequences.parquet", folder / "all-recs.parquet"
    build_sequences(shop.jobs.ratings, shop.jobs.sequences, sequences)
    in_use = shop.registry.current
    assert in_use is not None
    score(sequences, in_use.folder, shop.scoring, out)
    return rows_of(out)


def test_the_first_night_trains_a_model_and_publishes_its_table(shop: Company) -> None:
    report = shop.run()
    assert report.trained_because == "there is no model yet"
    assert shop.manifest().model_id == ids()[0]
    assert report.model == f"{FIRST}-{ids()[0]}"
    assert shop.rows() == shop.rows(FIRST) == all_scored(shop, shop.folder)
    assert report.rows == len(shop.rows())
    assert report.failed is None
    kept = json.loads((shop.folder / f"nights/run_date={FIRST}/report.json").read_text())
    assert kept["recs_sha256"] == report.recs_sha256
    assert names_in(shop.folder / "nights") == {".lock", f"run_date={FIRST}"}


def test_unchanged_users_are_carried_over(shop: Company) -> None:
    shop.run()
    shop.write_log(later())
    report = shop.run(1)
    assert report.trained_because is None
    assert len(shop.trainings) == 1
    assert report.users is not None
    assert report.users_carried_over == report.users - 1
    assert shop.rows() == all_scored(shop, shop.folder)
    assert shop.archive.dates() == [FIRST, FIRST + timedelta(days=1)]


@pytest.mark.slow
def test_reasons_are_carried_over_and_a_night_without_them_scores_everybody(shop: Company) -> None:
    shop.run()
    plain, shop.scoring = shop.scoring, replace(shop.scoring, explain=True)
    assert shop.run(1).users_carried_over == 0
    report = shop.run(2)
    assert report.users_carried_over == report.users
    assert shop.rows() == all_scored(shop, shop.folder)
    assert {row["carried_by"] for row in shop.rows()} == {"encoder"}
    shop.scoring = plain
    assert shop.run(3).users_carried_over == 0
    assert shop.rows() == shop.rows(FIRST)


def test_a_model_is_retrained_at_its_maximum_age_from_the_one_in_use(shop: Company) -> None:
    shop.run()
    shop.run(6)
    assert len(shop.trainings) == 1
    report = shop.run(7)
    assert report.trained_because is not None
    assert "7 days old" in report.trained_because
    assert shop.trainings[1].init_from == str(shop.registry.folder / f"{FIRST}-{ids()[0]}")
    assert shop.manifest().model_id == ids()[1]


def test_a_user_who_is_deleted_from_the_log_is_in_no_table_that_is_kept(shop: Company) -> None:
    shop.run()
    shop.run(1)
    shop.write_log({user: items for user, items in training_histories().items() if user != 5})
    shop.run(2, keep=1)
    tables = [*shop.folder.glob("*.parquet"), *shop.archive.folder.rglob("*.parquet")]
    assert {path.name for path in tables} == {"recs.parquet"}
    for path in tables:
        assert 5 not in {row["user_id"] for row in rows_of(path)}


def test_a_model_of_a_clock_that_was_ahead_is_retrained(shop: Company) -> None:
    shop.run()
    in_use = shop.registry.current
    assert in_use is not None
    ahead = in_use.folder.rename(in_use.folder.with_name(in_use.name.replace("2024-03-01", "2124-03-01")))
    shop.registry.use(ModelVersion(ahead))
    report = shop.run(1)
    assert report.trained_because == f"the model in use, {ahead.name}, is of a night in the future"
    assert shop.run(2).trained_because is None


def test_lost_nights_are_logged_as_a_warning(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    shop.run()
    shop.run(1)
    assert "holds a table, but" not in caplog.text
    shutil.rmtree(shop.archive.folder)
    shop.run(2)
    assert "no night, so no gate compares tonight with earlier nights" in caplog.text


def test_training_starts_from_scratch_if_asked_or_if_the_shape_differs(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    shop.run(7, from_scratch=True)
    jobs = shop.jobs
    monkeypatch.setattr(Company, "jobs", replace(jobs, training=replace(jobs.training, hidden_size=4, n_heads=1)))
    shop.run(14)
    assert [training.init_from for training in shop.trainings] == [None] * 3


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"ndcg_at_10": 0.05}, "gate: NDCG@10"),
        ({"unknown_share": 0.2}, "drift: 20.0% of the newest events are of items unknown to the model in use"),
    ],
)
def test_a_model_is_retrained_if_the_one_in_use_fails(shop: Company, figures: dict[str, Any], reason: str) -> None:
    shop.run()
    shop.figures[ids()[0]] = replace(ModelFigures(ids()[0], 0.2, 0.1, 0.0), **figures)
    report = shop.run(1)
    assert report.trained_because is not None
    assert report.trained_because.startswith(reason)
    assert shop.manifest().model_id == ids()[1]


def test_a_model_that_ranks_worse_by_chance_is_kept(shop: Company) -> None:
    shop.run()
    shop.figures[ids()[0]] = ModelFigures(ids()[0], 0.05, 0.1, 0.0, popularity_margin=0.06)
    assert shop.run(1).trained_because is None


def test_repeating_a_night_without_changes_is_nothing_to_do(shop: Company) -> None:
    shop.run()
    before = shop.state()
    with pytest.raises(NothingToDo):
        shop.run()
    assert shop.state() == before
    assert names_in(shop.folder / "nights") == {".lock", f"run_date={FIRST}"}


@pytest.mark.slow
def test_repeating_a_night_with_a_new_log_replaces_only_its_own_table(shop: Company) -> None:
    for number in range(3):
        shop.run(number)
    before = shop.state()
    shop.write_log(later())
    shop.run(1)
    after = shop.state()
    second = str(FIRST + timedelta(days=1))
    assert {name for name in after if after[name] != before[name]} == {second}
    shop.run(2)
    assert shop.state()["out"] == shop.state()[second]


def test_a_lost_table_is_restored_by_the_next_run(shop: Company) -> None:
    shop.run()
    expected = shop.rows()
    (shop.folder / "recs.parquet").unlink()
    shop.run()
    assert shop.rows() == expected


def test_a_damaged_table_of_last_night_is_not_carried_over(shop: Company) -> None:
    shop.run()
    flip_a_bit(shop.archive.table(FIRST))
    report = shop.run(1)
    assert report.users_carried_over == 0
    assert shop.rows() == all_scored(shop, shop.folder)


def test_a_table_of_last_night_that_its_disk_cannot_read_does_not_fail_later_nights(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    shop.run(1)
    second, file_sha256 = FIRST + timedelta(days=1), disk.file_sha256
    lost = shop.archive.table(second)

    def failing(file: Path) -> str:
        if file.samefile(lost):
            raise OSError(errno.EIO, "Input/output error", str(file))
        return file_sha256(file)

    monkeypatch.setattr(disk, "file_sha256", failing)
    assert shop.archive.last_intact([FIRST, second]) == shop.archive.table(FIRST)
    shop.run(2)
    assert shop.rows() == all_scored(shop, shop.folder)


STEPS = {
    "build_sequences": night_module,
    "measure": HeldOutItems,
    "train": night_module,
    "score_file": night_module,
    "measure_table": night_module,
    "add": ModelRegistry,
    "use": ModelRegistry,
    "publish": Publication,
    "clean_up": Archive,
    "prune": Archive,
}


# A night that is killed before a step has as much as one that is killed after the step before it.
@pytest.mark.parametrize("ends", slow_except(["before", "after"], "after"))
@pytest.mark.parametrize("name", slow_except(STEPS.keys(), "train", "score_file", "use", "clean_up"))
def test_a_night_killed_at_any_step_resumes_to_the_same_table(
    shop: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends: str
) -> None:
    shop.run()
    shop.write_log(later())
    whole = shop.state()
    shop.run_killed(monkeypatch, STEPS[name], name, ends=ends, night=7)
    # A reader finds the old table or the new one, each of them complete.
    state = shop.state()
    if state["out"] != whole["out"]:
        assert state["out"] == state[str(FIRST + timedelta(days=7))]
    if shop.archive.work(FIRST + timedelta(days=7)).exists():
        assert shop.run(7).resumed
    else:
        with pytest.raises(NothingToDo):
            shop.run(7)
    assert shop.rows() == shop.rows(FIRST + timedelta(days=7)) == all_scored(shop, tmp_path)
    assert shop.manifest().model_id != ids()[0] or len(shop.trainings) == 3
    assert not [entry for entry in names_in(shop.folder / "nights") if entry.startswith(".run_date")]


def test_a_plan_predicts_the_run_and_writes_nothing(shop: Company) -> None:
    config = shop.run_config
    assert plan(shop.jobs, config, FIRST).trains == "there is no model yet"
    assert names_in(shop.folder) == {"ratings.csv"}
    shop.run()
    before = shop.state()
    planned = plan(shop.jobs, config, FIRST + timedelta(days=8))
    assert planned.model_in_use == f"{FIRST}-{ids()[0]}"
    assert planned.trains.startswith("the model in use is 8 days old")
    assert plan(shop.jobs, config, FIRST + timedelta(days=2)).trains.startswith("only if")
    assert shop.state() == before


def test_a_run_date_without_earlier_days_is_refused(shop: Company) -> None:
    with pytest.raises(ConfigError, match="--run-date 0001-01-01: expected a date like 2024-06-01, after 1970"):
        run(shop.jobs, shop.run_config, date.min)


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
