"""The whole job: train, score, compare, write."""

import json
import logging
import math
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import batchrec
from batchrec.config import EvaluationConfig, TrainingConfig
from batchrec.evaluation.bootstrap import Interval
from batchrec.evaluation.evaluate import evaluate
from batchrec.evaluation.metrics import MethodMetrics, measure_lists
from batchrec.evaluation.report import EvaluationReport
from batchrec.evaluation.report_text import format_report
from batchrec.model.directory import load_model
from batchrec.training.train import TrainingReport, train
from tests.support.logs import write_log
from tests.support.models import names_in, run_cli, training_histories, training_sequences, write_sequences
from tests.support.shared import scratch

QUICK = TrainingConfig(max_epochs=1, min_epoch_steps=1, n_layers=1, hidden_size=8, n_heads=2, max_len=8, device="cpu")
QUICKLY = ("--max-epochs", 1, "--min-epoch-steps", 1, "--n-layers", 1, "--hidden-size", 8, "--device", "cpu")
DAY = 86_400
INTERVALS = ("ndcg", "hit_rate", "recall", "mrr", "ndcg_gain")


@cache
def evaluated() -> EvaluationReport:
    """An evaluation of the tests' log by leave-one-out."""
    return evaluate(training_sequences(), EvaluationConfig(n_resamples=100), QUICK, scratch() / "evaluation.parquet")


def by_method(report: EvaluationReport) -> dict[str, Any]:
    return {result.method: result for result in report.methods}


def assert_refused(
    arguments: tuple[object, ...], exit_code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    """Assert that the run fails and leaves the folder as it was; return its message."""
    before = names_in(folder)
    assert run_cli("evaluate", *QUICKLY, *arguments) == exit_code
    assert names_in(folder) == before
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()[-1]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any training fail the test: errors must be found before it."""

    def fail(*_: object) -> None:
        pytest.fail("training began")

    monkeypatch.setattr("batchrec.evaluation.evaluate.train", fail)


def test_the_table_and_the_json_hold_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "evaluation.parquet"
    options = ("--sequences", training_sequences(), "--n-resamples", 100, "--top-k", 5, "--out", out)
    assert run_cli("evaluate", *QUICKLY, *options, "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8")) == report
    assert pq.read_table(out).to_pylist() == [
        {"protocol": "leave-one-out", "k": 5} | result for result in report["methods"]
    ]
    assert pq.read_schema(out).metadata[b"batchrec.contract"] == b"evaluation/2"
    assert names_in(tmp_path) == {"evaluation.parquet", "evaluation.json"}
    assert report["model"]["options"]["hidden_size"] == 8


def test_without_json_a_table_and_a_verdict_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--sequences", training_sequences(), "--n-resamples", 100, "--out", tmp_path / "evaluation")
    assert run_cli("evaluate", *QUICKLY, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "leave-one-out, new items only"
    head = next(number for number, line in enumerate(lines) if "NDCG@10" in line)
    assert lines[head + 1].startswith("model ")
    assert len({len(line) for line in lines[head:-2]}) == 1
    assert lines[-1].startswith("model against ")
    assert names_in(tmp_path) == {"evaluation", "evaluation.json"}


def test_the_model_comes_first_and_then_the_baselines_best_first() -> None:
    first, *baselines = evaluated().methods
    assert first.method == "model"
    assert {result.method for result in baselines} >= {"popular", "popular, last 30 days", "item-to-item"}
    scores = [result.ndcg for result in baselines]
    assert scores == sorted(scores, reverse=True)
    assert evaluated().best_baseline == baselines[0].method
    assert (baselines[0].ndcg_gain, baselines[0].ndcg_gain_low, baselines[0].ndcg_gain_high) == (0, 0, 0)


def test_the_figures_are_consistent() -> None:
    report = evaluated()
    assert report.users_tested + sum(report.users_not_tested.values()) == len(training_histories())
    assert report.test_items == report.users_tested
    n_events = sum(map(len, training_histories().values()))
    assert report.training_events == n_events - report.users_tested
    best = report.methods[1].ndcg
    for result in report.methods:
        for name in INTERVALS:
            low, mean, high = (getattr(result, name + bound) for bound in ("_low", "", "_high"))
            assert low <= mean <= high
        assert result.hit_rate == result.recall  # with one test item per user
        assert result.ndcg_gain == pytest.approx(result.ndcg - best)
        assert 0 < result.coverage <= 1
        assert result.mean_popularity_rank is not None
        assert 1 <= result.mean_popularity_rank <= report.training_items


def test_popularity_equals_a_computation_by_hand() -> None:
    expected = []
    histories = training_histories()
    tested = {user: items for user, items in histories.items() if len(items) > 2 and items[-1] not in items[:-1]}
    trained = [items[:-1] if user in tested else items for user, items in histories.items()]
    counts: dict[int, int] = {}
    for item in (item for items in trained for item in items):
        counts[item] = counts.get(item, 0) + 1
    ranked = sorted(counts, key=lambda item: (-counts[item], item))
    for items in tested.values():
        unseen = [item for item in ranked if item not in items[:-1]][:10]
        expected.append(1 / math.log2(unseen.index(items[-1]) + 2) if items[-1] in unseen else 0)
    assert evaluated().users_tested == len(expected)
    assert by_method(evaluated())["popular"].ndcg == pytest.approx(sum(expected) / len(expected))


def test_one_seed_gives_one_evaluation(tmp_path: Path) -> None:
    again = evaluate(training_sequences(), EvaluationConfig(n_resamples=100), QUICK, tmp_path / "e.parquet")
    assert again.methods == evaluated().methods


def following_log() -> dict[str, list[tuple[str, int]]]:
    """40 users who go round a ring of 10 items from different starts: the next item follows from the last."""
    return {
        f"user-{user}": [(f"item-{(user + place) % 10}", place * DAY + user) for place in range(6)]
        for user in range(40)
    }


def test_a_model_of_sequences_beats_every_baseline(tmp_path: Path) -> None:
    sequences = write_log(tmp_path / "log.parquet", following_log())
    learned = TrainingConfig(
        max_epochs=30, min_epoch_steps=20, hidden_size=16, n_layers=1, learning_rate=1e-2, device="cpu"
    )
    report = evaluate(sequences, EvaluationConfig(top_k=1, n_resamples=100), learned, tmp_path / "e.parquet")
    model, *baselines = report.methods
    assert model.hit_rate > 0.8
    assert all(model.ndcg > baseline.ndcg for baseline in baselines)
    assert model.ndcg_gain_low > 0
    assert format_report(report).endswith(": better")


@pytest.mark.parametrize("is_text", [False, True])
def test_ids_may_be_integers_or_text(is_text: bool, tmp_path: Path) -> None:
    log = {
        user if is_text else int(user[5:]): [(item if is_text else int(item[5:]), moment) for item, moment in events]
        for user, events in following_log().items()
    }
    sequences = write_log(tmp_path / "log.parquet", log)
    report = evaluate(sequences, EvaluationConfig(n_resamples=100, keep_seen=True), QUICK, tmp_path / "e.parquet")
    assert report.users_tested == 40
    assert by_method(report)["model"].hit_rate == 1  # all ten items are recommended
    assert by_method(report)["popular"].hit_rate == 1


def test_nothing_after_the_cut_reaches_the_model_or_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = {user: [*events, (f"new-{user}", 20 * DAY), ("new", 21 * DAY)] for user, events in following_log().items()}
    sequences = write_log(tmp_path / "log.parquet", log)
    known: list[set[str]] = []

    def train_and_look(training: Path, config: TrainingConfig, out: Path) -> TrainingReport:
        times = pq.read_table(training)["timestamps"].combine_chunks().flatten()
        assert max(times.to_pylist()) < 15 * DAY
        report = train(training, config, out)
        known.append(set(load_model(out).vocabulary.item_ids.to_pylist()))
        return report

    def measure_and_look(con: Any, method: str, lists: Path, k: int) -> MethodMetrics:
        known.append(set(pq.read_table(lists)["item_id"].to_pylist()))
        return measure_lists(con, method, lists, k)

    monkeypatch.setattr("batchrec.evaluation.evaluate.train", train_and_look)
    monkeypatch.setattr("batchrec.evaluation.evaluate.measure_lists", measure_and_look)
    evaluation = EvaluationConfig("temporal", "1970-01-16", top_k=2, n_resamples=100)
    report = evaluate(sequences, evaluation, QUICK, tmp_path / "e.parquet")
    assert len(known) == len(report.methods) + 1
    assert set.union(*known) == {f"item-{number}" for number in range(10)}
    assert report.cut == "1970-01-16T00:00:00+00:00"
    assert report.test_items == report.unknown_test_items == 80
    assert all(result.ndcg == 0 for result in report.methods)
    assert "80 items, 80 of them unknown in training" in format_report(report)


def test_a_sample_of_the_users_is_tested(tmp_path: Path) -> None:
    report = evaluate(
        training_sequences(), EvaluationConfig(test_users=5, n_resamples=100), QUICK, tmp_path / "e.parquet"
    )
    assert report.users_tested == 5
    assert report.training_events == evaluated().training_events


def test_without_implicit_als_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("batchrec.evaluation.als.find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING, "batchrec"):
        report = evaluate(training_sequences(), EvaluationConfig(n_resamples=100), QUICK, tmp_path / "e.parquet")
    assert "als" not in by_method(report)
    (line,) = [record.getMessage() for record in caplog.records if "als" in record.getMessage()]
    assert "pip install 'batchrec[als]'" in line


def test_with_implicit_als_is_a_baseline() -> None:
    pytest.importorskip("implicit")
    assert "als" in by_method(evaluated())


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (("--top-k", 41), 2, "--top-k 41: the training part holds 40 items. Pass 40 or less"),
        (("--protocol", "temporal"), 3, "all of it within the last 7 days. Pass fewer --test-days"),
        (
            ("--protocol", "temporal", "--cut", "2024-01-01"),
            3,
            "from 1970-01-01T00:00:00+00:00 to 1970-01-01T00:00:21+00:00; --cut 2024-01-01 is not within it",
        ),
        (("--protocol", "temporal", "--cut", "soon"), 2, "--cut soon: expected an ISO date or time"),
    ],
)
def test_bad_options_are_refused_before_training(
    options: tuple[object, ...], exit_code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--sequences", training_sequences(), "--out", tmp_path / "e.parquet", *options)
    assert message in assert_refused(arguments, exit_code, tmp_path, capsys)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({1: [1, 2], 2: [1]}, "no user can be tested; of 2 users: 2 (fewer than 3 events)"),
        ({1: [1, 2, 3, 4] * 3, 2: [1, 1, 1]}, "of 2 users: 2 (last item seen before)"),
        ({1: list(range(12))}, "1 user(s) in the training part; expected two or more"),
        ({1: [1, None, 3]}, "null"),
    ],
)
def test_bad_sequences_are_refused_before_training(
    histories: dict[int, list[int]], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = write_sequences(tmp_path / "s.parquet", histories)
    line = assert_refused(("--sequences", sequences, "--out", tmp_path / "e.parquet"), 3, tmp_path, capsys)
    assert message in line
    assert "s.parquet" in line


@pytest.mark.usefixtures("no_training")
def test_missing_sequences_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--sequences", tmp_path / "none.parquet", "--out", tmp_path / "e.parquet")
    assert "no such file" in assert_refused(arguments, 3, tmp_path, capsys)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("none/e.parquet", "does not exist"),
        ("folder", "is a folder"),
        ("taken.parquet", "taken.json: is a folder"),
        ("evaluation.json", "that name is for the JSON"),
    ],
)
def test_an_out_that_cannot_be_written_is_refused_before_training(
    out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.json").mkdir()
    arguments = ("--sequences", tmp_path / "none.parquet", "--out", tmp_path / out)
    assert message in assert_refused(arguments, 2, tmp_path, capsys)


@pytest.mark.parametrize("step", ["train", "score", "compare", "write_parquet"])
def test_a_failing_step_leaves_only_the_older_files(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("e.parquet", "e.json"):
        (tmp_path / name).write_text("older", encoding="utf-8")

    def fail(*_: object) -> None:
        raise RuntimeError(step)

    monkeypatch.setattr(f"batchrec.evaluation.evaluate.{step}", fail)
    with pytest.raises(RuntimeError):
        evaluate(training_sequences(), EvaluationConfig(), QUICK, tmp_path / "e.parquet")
    assert names_in(tmp_path) == {"e.parquet", "e.json"}
    assert {(tmp_path / name).read_text(encoding="utf-8") for name in names_in(tmp_path)} == {"older"}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.005, 0.019, "NDCG@10 +.0120 [+.0050, +.0190]: better"),
        (-0.005, 0.019, "NDCG@10 +.0070 [-.0050, +.0190]: no difference that these users can show"),
        (-0.019, -0.005, "NDCG@10 -.0120 [-.0190, -.0050]: worse"),
    ],
)
def test_the_verdict_depends_on_the_interval_of_the_gain(low: float, high: float, verdict: str) -> None:
    values = asdict(evaluated())
    gain = Interval((low + high) / 2, low, high)
    first = {**values["methods"][0], "ndcg_gain": gain.mean, "ndcg_gain_low": low, "ndcg_gain_high": high}
    model, *others = evaluated().methods
    methods = [type(model)(**first), *others]
    report = EvaluationReport(**{**vars(evaluated()), "methods": methods})
    assert format_report(report).splitlines()[-1] == f"model against {report.best_baseline}: {verdict}"


def test_the_package_offers_the_job() -> None:
    assert batchrec.evaluate is evaluate
    assert batchrec.EvaluationConfig is EvaluationConfig
