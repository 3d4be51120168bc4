"""run: what a night publishes, when it trains, and what stays as it was where it fails."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from batchrec.errors import ConfigError, GateError, InputError, LockedError, NothingToDo
from batchrec.model.directory import load_model
from batchrec.nightly import stages as night_module
from batchrec.nightly.archive import Nights
from batchrec.nightly.figures import HeldOutItems
from batchrec.nightly.registry import Models
from batchrec.nightly.report import ModelFigures
from batchrec.nightly.run import plan, run
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from tests.support.models import OBJECTIVES, model_of, names_in, training_histories
from tests.support.nights import FIRST, Company, company, rows_of


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    with company(tmp_path, monkeypatch) as made:
        yield made


def later(user: int = 5) -> dict[int, list[int]]:
    """The log with one more event of a user, of an item that is new to them."""
    history = training_histories()[user]
    new = next(item for item in range(1000, 1040) if item not in history)
    return training_histories() | {user: [*history, new]}


def ids() -> tuple[str, str]:
    causal, masked = (load_model(model_of(objective)).manifest.model_id for objective in OBJECTIVES)
    return causal, masked


def all_scored(shop: Company, folder: Path) -> list[dict[str, Any]]:
    """What a full score of the log as it is gives, with the model in use, apart from any night."""
    sequences, out = folder / "all-sequences.parquet", folder / "all-recs.parquet"
    build_sequences(shop.jobs.ratings, shop.jobs.sequences, sequences)
    in_use = shop.models.current
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


def test_the_next_night_scores_with_the_model_in_use_and_only_whom_something_is_new_of(shop: Company) -> None:
    shop.run()
    shop.write_log(later())
    report = shop.run(1)
    assert report.trained_because is None
    assert len(shop.trainings) == 1
    assert report.users is not None
    assert report.users_carried_over == report.users - 1
    assert shop.rows() == all_scored(shop, shop.folder)
    assert shop.nights.dates() == [FIRST, FIRST + timedelta(days=1)]


def test_a_model_is_trained_anew_at_its_age_from_the_one_in_use(shop: Company) -> None:
    shop.run()
    shop.run(6)
    assert len(shop.trainings) == 1
    report = shop.run(7)
    assert report.trained_because is not None
    assert "7 days old" in report.trained_because
    assert shop.trainings[1].init_from == str(shop.models.folder / f"{FIRST}-{ids()[0]}")
    assert shop.manifest().model_id == ids()[1]


def test_from_scratch_or_with_another_shape_nothing_is_taken_from_the_model_in_use(
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
        ({"unknown_share": 0.2}, "drift: the model in use knows nothing of 20.0%"),
    ],
)
def test_a_model_is_trained_anew_where_the_one_in_use_fails(
    shop: Company, figures: dict[str, Any], reason: str
) -> None:
    shop.run()
    shop.figures[ids()[0]] = replace(ModelFigures(ids()[0], 0.2, 0.1, 0.0), **figures)
    report = shop.run(1)
    assert report.trained_because is not None
    assert report.trained_because.startswith(reason)
    assert shop.manifest().model_id == ids()[1]


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (ModelFigures(ids()[1], 0.05, 0.1, 0.0), "NDCG@10 is 0.05, expected at least 0.1"),
        (ModelFigures(ids()[1], 0.17, 0.1, 0.0), "NDCG@10 beside the model in use is 0.17, expected at least 0.18"),
    ],
)
def test_a_new_model_that_ranks_badly_is_not_used(shop: Company, figures: ModelFigures, said: str) -> None:
    shop.run()
    before = shop.state()
    shop.figures[ids()[1]] = figures
    with pytest.raises(GateError, match=said):
        shop.run(7)
    assert shop.state() == before
    report = json.loads((shop.folder / f"nights/failed/{FIRST + timedelta(days=7)}.json").read_text())
    assert said in report["failed"]
    assert [check["figure"] for check in report["checks"] if not check["passed"]]


def test_a_log_of_half_is_not_published_and_the_next_whole_one_is(shop: Company) -> None:
    shop.run()
    before = shop.state()
    shop.write_log(dict(list(training_histories().items())[:20]))
    with pytest.raises(GateError, match=r"input gate: rows read is .* expected at least"):
        shop.run(1)
    assert shop.state() == before
    assert f"run_date={FIRST + timedelta(days=1)}" not in names_in(shop.folder / "nights")
    shop.write_log(training_histories())
    shop.run(1)
    assert shop.nights.dates() == [FIRST, FIRST + timedelta(days=1)]
    assert names_in(shop.folder / "nights/failed") == set()


def test_an_old_log_is_not_published(shop: Company) -> None:
    with pytest.raises(GateError, match="days since the newest event is 108, expected at least 0 and at most 3"):
        shop.run(gate_max_age_days=3.0)


def test_a_table_that_reaches_too_few_is_not_published(shop: Company) -> None:
    with pytest.raises(GateError, match=r"output gate: share of the items recommended is .*, expected at least 1"):
        shop.run(gate_min_coverage=1.0)
    assert not (shop.folder / "recs.parquet").exists()
    assert shop.models.current is None


@pytest.mark.parametrize(("n_rows", "said"), [(0, "is 0, expected"), (30, r"is 0\.\d+, expected")])
def test_a_table_without_some_users_is_not_published_whatever_the_scorer_says(
    shop: Company, monkeypatch: pytest.MonkeyPatch, n_rows: int, said: str
) -> None:
    def losing(sequences: Path, model: Path, config: Any, out: Path, checkpoint_dir: Path) -> Any:
        report = score(sequences, model, config, out, checkpoint_dir)
        pq.write_table(pq.read_table(out).slice(0, n_rows), out)
        return replace(report, users=n_rows // 3)

    monkeypatch.setattr(night_module, "score", losing)
    with pytest.raises(GateError, match=f"output gate: share of users covered {said}"):
        shop.run(gate_min_users=0.5)
    assert not (shop.folder / "recs.parquet").exists()


def test_a_night_that_is_repeated_for_nothing_says_so(shop: Company) -> None:
    shop.run()
    before = shop.state()
    with pytest.raises(NothingToDo):
        shop.run()
    assert shop.state() == before
    assert names_in(shop.folder / "nights") == {".lock", f"run_date={FIRST}"}


def test_a_night_that_is_repeated_with_a_new_log_replaces_its_own_table_alone(shop: Company) -> None:
    for night in range(3):
        shop.run(night)
    before = shop.state()
    shop.write_log(later())
    shop.run(1)
    after = shop.state()
    second = str(FIRST + timedelta(days=1))
    assert {name for name in after if after[name] != before[name]} == {second}
    shop.run(2)
    assert shop.state()["out"] == shop.state()[second]


def test_a_lost_table_comes_back(shop: Company) -> None:
    shop.run()
    expected = shop.rows()
    (shop.folder / "recs.parquet").unlink()
    shop.run()
    assert shop.rows() == expected


def test_a_damaged_table_of_last_night_is_not_carried_over(shop: Company) -> None:
    shop.run()
    table = shop.nights.table(FIRST)
    contents = bytearray(table.read_bytes())
    contents[len(contents) // 2] ^= 1
    table.unlink()
    table.write_bytes(contents)
    report = shop.run(1)
    assert report.users_carried_over == 0
    assert shop.rows() == all_scored(shop, shop.folder)


def test_a_damaged_model_in_use_is_replaced(shop: Company) -> None:
    shop.run()
    weights = shop.folder / "models/current/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    report = shop.run(1, train_every="300d")
    assert report.trained_because is not None
    assert "weights.safetensors is not the file that was written" in report.trained_because
    assert shop.manifest().model_id == ids()[1]


STEPS = [
    (night_module, "build_sequences"),
    (HeldOutItems, "measure"),
    (night_module, "train"),
    (night_module, "score"),
    (night_module, "measure_table"),
    (Models, "add"),
    (Models, "use"),
    (Nights, "publish"),
    (Nights, "settle"),
    (Nights, "prune"),
]


@pytest.mark.parametrize("ends", ["before", "after"])
@pytest.mark.parametrize(("home", "name"), STEPS, ids=[name for _, name in STEPS])
def test_a_night_that_ended_anywhere_goes_on_to_the_same_table(  # noqa: PLR0917
    shop: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Any, name: str, ends: str
) -> None:
    shop.run()
    shop.write_log(later())
    whole = shop.state()
    shop.run_killed(monkeypatch, home, name, ends=ends, night=7)
    # A reader finds the old night or the new one, each of them whole.
    found = shop.state()
    if found["out"] != whole["out"]:
        assert found["out"] == found[str(FIRST + timedelta(days=7))]
    if shop.nights.work(FIRST + timedelta(days=7)).exists():
        assert shop.run(7).resumed
    else:
        with pytest.raises(NothingToDo):
            shop.run(7)
    assert shop.rows() == shop.rows(FIRST + timedelta(days=7)) == all_scored(shop, tmp_path)
    assert shop.manifest().model_id != ids()[0] or len(shop.trainings) == 3
    assert not [entry for entry in names_in(shop.folder / "nights") if entry.startswith(".run_date")]


def test_histories_that_change_while_the_night_is_made_are_detected(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampering(sequences: Path, *rest: Any) -> Any:
        report = score(sequences, *rest)
        sequences.write_bytes(sequences.read_bytes() + b"x")
        return report

    monkeypatch.setattr(night_module, "score", tampering)
    with pytest.raises(InputError, match="was changed while the night was made"):
        shop.run()


def test_two_runs_at_once_are_one(shop: Company) -> None:
    shop.run()
    before = shop.state()
    with FileLock(shop.folder / "nights/.lock"), pytest.raises(LockedError, match="another run is at work"):
        shop.run(1)
    assert shop.state() == before
    assert (shop.folder / "nights/.lock").exists()
    shop.run(1)


def test_a_clock_that_has_gone_back_is_not_believed(shop: Company) -> None:
    shop.run()
    ahead = datetime.now(UTC).date() + timedelta(days=10)
    shop.nights.table(FIRST).parent.rename(shop.nights.table(ahead).parent)
    before = shop.state()
    for refused in (run, plan):
        # By name neither: it would succeed, and not be out.
        for asked_for in (None, FIRST, datetime.now(UTC).date()):
            with pytest.raises(
                ConfigError, match=rf"the clock says .*, but night {ahead} is .*move that night's folder"
            ):
                refused(shop.jobs, shop.settled, asked_for)
    assert shop.state() == before


def test_a_plan_says_what_would_be_done_and_writes_nothing(shop: Company) -> None:
    config = shop.settled
    assert plan(shop.jobs, config, FIRST).trains == "there is no model yet"
    assert names_in(shop.folder) == {"ratings.csv"}
    shop.run()
    before = shop.state()
    planned = plan(shop.jobs, config, FIRST + timedelta(days=8))
    assert planned.model_in_use == f"{FIRST}-{ids()[0]}"
    assert planned.trains.startswith("the model in use is 8 days old")
    assert plan(shop.jobs, config, FIRST + timedelta(days=2)).trains.startswith("only if")
    assert shop.state() == before


def test_a_night_can_be_put_back(shop: Company) -> None:
    tables = []
    for night in range(3):
        shop.write_log(later(5 + night))
        shop.run(night)
        tables.append(shop.rows())
    assert tables[0] != tables[1] != tables[2]
    assert shop.nights.roll_back() == FIRST + timedelta(days=1)
    assert shop.rows() == tables[1]
    assert shop.nights.roll_back() == FIRST
    with pytest.raises(ConfigError, match="no other night before this one"):
        shop.nights.roll_back()
    assert shop.nights.roll_back(FIRST + timedelta(days=2)) == FIRST + timedelta(days=2)
    assert shop.rows() == tables[2]
    with pytest.raises(ConfigError, match="there is no night 1999-01-01"):
        shop.nights.roll_back(FIRST.replace(year=1999, month=1))


def test_no_table_is_put_back_of_which_a_byte_has_changed(shop: Company) -> None:
    shop.run()
    shop.write_log(later())
    shop.run(1)
    expected = shop.rows()
    (shop.folder / f"nights/run_date={FIRST}/recs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="not the table that was published"):
        shop.nights.roll_back()
    assert shop.rows() == expected


def test_old_nights_and_models_are_deleted_but_never_what_is_in_use(shop: Company) -> None:
    with pytest.raises(GateError):
        shop.run(0, gate_min_coverage=1.0)
    for night in range(0, 28, 7):
        shop.write_log(later(5 + night))
        shop.run(night + 1, keep=2, keep_models=1)
    assert names_in(shop.folder / "nights/failed") == set()
    assert shop.nights.dates() == [FIRST + timedelta(days=15), FIRST + timedelta(days=22)]
    assert len(shop.models.versions()) == 1
    shop.nights.roll_back()
    shop.nights.prune(1, FIRST + timedelta(days=22))
    assert shop.nights.dates() == [FIRST + timedelta(days=15), FIRST + timedelta(days=22)]


def test_a_model_can_be_put_back(shop: Company) -> None:
    shop.run()
    shop.run(7)
    first, second = shop.models.versions()
    assert shop.models.current == second
    assert shop.models.before_current() == first
    shop.models.use(first)
    assert shop.models.current == first
    with pytest.raises(ConfigError, match="no model before"):
        shop.models.before_current()
    with pytest.raises(ConfigError, match=f"no model 'x'; found {first.name}, {second.name}"):
        shop.models.find("x")
    assert shop.models.prune(1) == []


def test_what_a_monitor_reads_tells_success_from_failure(shop: Company) -> None:
    shop.run()
    read = (shop.folder / "metrics.prom").read_text()
    assert "batchrec_exit_code 0.0" in read
    assert 'batchrec_ndcg_at_10{model="new"} 0.2' in read
    assert f'batchrec_stage_rows{{stage="score"}} {float(len(shop.rows()))}' in read
    success = next(line for line in read.splitlines() if line.startswith("batchrec_last_success_timestamp_seconds "))
    with pytest.raises(GateError):
        shop.run(1, gate_min_coverage=1.0)
    read = (shop.folder / "metrics.prom").read_text()
    assert "batchrec_exit_code 6.0" in read
    assert 'batchrec_gate_passed{figure="share of the items recommended",gate="output"} 0.0' in read
    assert success in read


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written_are_refused(shop: Company) -> None:
    (shop.folder / "models").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        shop.run()


def test_a_lost_log_leaves_the_table(shop: Company) -> None:
    shop.run()
    before = shop.state()
    (shop.folder / "ratings.csv").unlink()
    with pytest.raises(InputError, match=r"ratings\.csv"):
        shop.run(1)
    assert shop.state() == before
    shutil.rmtree(shop.folder / "models")
