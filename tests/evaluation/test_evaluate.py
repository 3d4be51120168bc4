"""The whole job: train, score, compare, write."""

import json
import logging
import math
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchrec
from batchrec.config import EvaluationConfig, TrainingConfig
from batchrec.evaluation.evaluate import evaluate
from batchrec.evaluation.metrics import MethodMetrics, measure_lists
from batchrec.evaluation.report import EvaluationReport, MethodPair, question_of
from batchrec.evaluation.report_text import format_report
from batchrec.evaluation.verdicts import verdicts
from batchrec.model.directory import load_model
from batchrec.training.train import TrainingReport, train
from tests.support.logs import write_log
from tests.support.models import names_in, run_cli, training_histories, training_sequences, write_sequences
from tests.support.params import slow_except
from tests.support.shared import scratch

QUICK = TrainingConfig(max_epochs=1, min_epoch_steps=1, n_layers=1, hidden_size=8, n_heads=2, max_len=8, device="cpu")
QUICKLY = (
    *("--max-epochs", 1, "--min-epoch-steps", 1, "--n-layers", 1, "--hidden-size", 8, "--device", "cpu"),
    # With these, graphs have the shape of the other tests' model.
    *("--blend", "none", "--max-len", 8),
)
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
def simple_methods() -> list[str]:
    """Name the methods of an evaluation, but not the model. Before no_training, because a model is trained for it."""
    return [result.method for result in evaluated().methods[1:]]


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
    head = {"protocol": "leave-one-out", "question": "Does a list hold the next new item that the user takes?", "k": 5}
    assert pq.read_table(out).to_pylist() == [head | result for result in report["methods"]]
    assert pq.read_schema(out).metadata[b"batchrec.contract"] == b"evaluation/2"
    assert names_in(tmp_path) == {"evaluation.parquet", "evaluation.json"}
    assert report["model"]["options"]["hidden_size"] == 8


def test_without_json_a_table_and_a_verdict_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--sequences", training_sequences(), "--n-resamples", 100, "--out", tmp_path / "evaluation")
    assert run_cli("evaluate", *QUICKLY, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["leave-one-out, new items only", "Does a list hold the next new item that the user takes?"]
    head = next(number for number, line in enumerate(lines) if "NDCG@10" in line)
    assert lines[head + 1].startswith("model ")
    assert len({len(line) for line in lines[head:-2]}) == 1
    assert lines[-1].startswith("model against ")
    assert names_in(tmp_path) == {"evaluation", "evaluation.json"}


@pytest.mark.slow
def test_the_parts_of_the_blend_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "evaluation.parquet"
    options = ("--sequences", training_sequences(), "--n-resamples", 100, "--out", out)
    assert run_cli("evaluate", *QUICKLY, *options, "--blend", "auto") == 0
    model = json.loads(out.with_suffix(".json").read_text())["model"]
    assert model["blend"].keys() == model["blend_ndcg_gains"].keys() > {"encoder", "popular", "neighbours"}
    assert sum(model["blend_shares"].values()) == pytest.approx(1)
    printed = capsys.readouterr().out
    assert "blend, and the gain of each signal in validation: " in printed
    assert "top 10 in validation, carried by: " in printed
    assert model["options"]["validate"] == "last-item"


def test_the_model_comes_first_and_then_the_baselines_best_first() -> None:
    first, *baselines = evaluated().methods
    assert first.method == "model"
    assert {result.method for result in baselines} - {"als"} == {
        "popular",
        "popular, last 7 days",
        "popular, last 30 days",
        "item-to-item",
        "item-to-item, recency-weighted",
    }
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
    (best,) = [result.ndcg for result in report.methods if result.method == report.best_baseline]
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


@pytest.mark.slow
def test_one_seed_gives_one_evaluation(tmp_path: Path) -> None:
    again = evaluate(training_sequences(), EvaluationConfig(n_resamples=100), QUICK, tmp_path / "e.parquet")
    assert again.methods == evaluated().methods


def following_log() -> dict[str, list[tuple[str, int]]]:
    """40 users who go round a ring of 10 items from different starts: the next item follows from the last."""
    return {
        f"user-{user}": [(f"item-{(user + place) % 10}", place * DAY + user) for place in range(6)]
        for user in range(40)
    }


def log_of_order() -> dict[str, list[tuple[str, int]]]:
    """Users who take a lock after its key; a case shares more users with the key, but always comes before it."""
    histories: dict[str, list[str]] = {}
    for number in range(10):
        case, key, lock = f"case-{number}", f"key-{number}", f"lock-{number}"
        histories |= {f"before-{number}-{user}": [case, key] for user in range(8)}
        histories |= {f"after-{number}-{user}": [key, lock] for user in range(4)}
        # Only these have enough events to be tested.
        histories |= {f"tested-{number}-{user}": [f"coin-{user}", key, lock] for user in range(4)}
    return {user: [(item, place * DAY) for place, item in enumerate(items)] for user, items in histories.items()}


@pytest.mark.slow
def test_a_model_of_sequences_beats_every_baseline(tmp_path: Path) -> None:
    sequences = write_log(tmp_path / "log.parquet", log_of_order())
    learned = TrainingConfig(
        max_epochs=30, min_epoch_steps=20, hidden_size=16, n_layers=1, learning_rate=1e-2, device="cpu"
    )
    # With a factor per key, ALS would learn by heart who took what.
    evaluation = EvaluationConfig(top_k=1, als_factors=2, n_resamples=100)
    report = evaluate(sequences, evaluation, learned, tmp_path / "e.parquet")
    model, *baselines = report.methods
    assert report.users_tested == 40
    assert model.hit_rate > 0.8
    assert all(model.ndcg > baseline.ndcg for baseline in baselines)
    assert model.ndcg_gain_low > 0
    assert format_report(report).endswith(": better")


@pytest.mark.parametrize("is_text", slow_except([False, True], True))
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


def test_every_two_methods_are_compared_on_the_same_resamples() -> None:
    names, ndcg = [result.method for result in evaluated().methods], by_method(evaluated())
    assert [(pair.method, pair.other) for pair in evaluated().pairs] == list(combinations(names, 2))
    for pair in evaluated().pairs:
        assert pair.ndcg_gain == pytest.approx(ndcg[pair.method].ndcg - ndcg[pair.other].ndcg)
        assert pair.ndcg_gain_low <= pair.ndcg_gain <= pair.ndcg_gain_high
        if pair.other == evaluated().best_baseline:
            gain = ndcg[pair.method]
            bounds = (gain.ndcg_gain, gain.ndcg_gain_low, gain.ndcg_gain_high)
            assert (pair.ndcg_gain, pair.ndcg_gain_low, pair.ndcg_gain_high) == bounds


def write_recs(path: Path, lists: Mapping[Any, list[Any]]) -> Path:
    rows = [(user, item, rank) for user, items in lists.items() for rank, item in enumerate(items, 1)]
    columns = zip(("user_id", "item_id", "rank"), zip(*rows, strict=True), strict=True)
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns}), path)
    return path


@pytest.mark.usefixtures("no_training")
def test_tables_are_compared_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = following_log()
    sequences = write_log(tmp_path / "log.parquet", log)
    right = write_recs(tmp_path / "right.parquet", {user: [events[-1][0]] for user, events in log.items()})
    # The first item of the history is never a new one.
    seen = {user: [events[0][0], events[-1][0]] for user, events in log.items() if user != "user-1"}
    second = write_recs(tmp_path / "second.parquet", seen)
    out = tmp_path / "e.parquet"
    options = ("--recs", right, "--recs", second, "--no-model", "--top-k", 2, "--n-resamples", 100, "--out", out)
    assert run_cli("evaluate", "--sequences", sequences, *options) == 0
    printed = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert report["model"] is None
    assert report["tables"] == [str(right), str(second)]
    first, other, *baselines = report["methods"]
    assert (first["method"], other["method"]) == (str(right), str(second))
    assert first["ndcg"] == 1
    assert other["ndcg"] == pytest.approx(39 / 40 / math.log2(3))
    assert (first["users_with_full_list"], other["users_with_full_list"]) == (0, 39)
    assert report["best_baseline"] == baselines[0]["method"]
    assert first["ndcg_gain"] == pytest.approx(1 - baselines[0]["ndcg"])
    heads = [
        f"{one} against {two}: " for one, two in [(right, baselines[0]["method"]), (second, baselines[0]["method"])]
    ]
    heads.append(f"{right} against {second}: NDCG@2 +")
    assert len(printed[-4:]) == 4
    assert printed[-4] == ""
    for line, head in zip(printed[-3:], heads, strict=True):
        assert line.startswith(head)
    assert printed[-1].endswith(": better")
    assert "epoch" not in printed[2]


def test_without_model_and_tables_only_simple_methods_are_compared(
    simple_methods: list[str], no_training: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--sequences", training_sequences(), "--n-resamples", 100, "--out", tmp_path / "e.parquet")
    assert run_cli("evaluate", "--no-model", *options) == 0
    assert "against" not in capsys.readouterr().out
    methods = pq.read_table(tmp_path / "e.parquet")["method"].to_pylist()
    assert methods == simple_methods


@pytest.mark.slow
def test_the_model_is_compared_with_every_table(tmp_path: Path) -> None:
    recs = write_recs(tmp_path / "r.parquet", {user: items[-1:] for user, items in training_histories().items()})
    config = EvaluationConfig(recs=(str(recs),), n_resamples=100)
    report = evaluate(training_sequences(), config, QUICK, tmp_path / "e.parquet")
    assert [result.method for result in report.methods[:2]] == ["model", str(recs)]
    assert report.methods[0] == evaluated().methods[0]
    *_, model, table, both = format_report(report).splitlines()
    assert model.startswith(f"model against {report.best_baseline}: ")
    assert table.startswith(f"{recs} against {report.best_baseline}: ")
    assert both.startswith(f"model against {recs}: NDCG@10 -")
    assert both.endswith(": worse")


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("name", ["model", "popular"])
def test_a_table_with_the_name_of_a_method_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--sequences", training_sequences(), "--recs", name, "--out", tmp_path / "e.parquet")
    message = assert_refused(arguments, 2, tmp_path, capsys)
    assert f"--recs {name}: a method has that name. Pass ./{name}" in message


@pytest.mark.usefixtures("no_training")
def test_tables_that_cannot_be_used_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "given.csv").write_text("user_id,item_id,rank\nnobody,1000,1\n", encoding="utf-8")
    arguments = ("--sequences", training_sequences(), "--out", tmp_path / "e.parquet")
    line = assert_refused((*arguments, "--recs", tmp_path / "given.csv"), 3, tmp_path, capsys)
    assert "given.csv: --recs user_id 'nobody'; expected an integer, as in the log" in line
    line = assert_refused((*arguments, "--recs", tmp_path / "none.csv"), 3, tmp_path, capsys)
    assert "none.csv" in line
    options = ("--protocol", "split", "--split", tmp_path / "given.csv")
    line = assert_refused((*arguments, *options), 3, tmp_path, capsys)
    assert "given.csv: --split user_id 'nobody'; expected an integer, as in the log" in line


@pytest.mark.parametrize(
    ("options", "question"),
    [
        ({}, "Does a list hold the next new item that the user takes?"),
        ({"keep_seen": True}, "Does a list hold the next item that the user takes?"),
        ({"protocol": "temporal"}, "Does a list hold the new items that the user takes after the cut?"),
        ({"protocol": "temporal", "question": "next"}, "Does a list hold the next new item that the user takes?"),
        ({"protocol": "split", "split": "s"}, "Does a list hold the new items that --split names for the user?"),
        (
            {"protocol": "split", "split": "s", "question": "next", "keep_seen": True},
            "Does a list hold the first item that --split names for the user?",
        ),
    ],
)
def test_the_question_is_named_in_words(options: dict[str, Any], question: str) -> None:
    assert question_of(EvaluationConfig(**options)) == question


@pytest.mark.slow
def test_a_sample_of_the_users_is_tested(tmp_path: Path) -> None:
    report = evaluate(
        training_sequences(), EvaluationConfig(test_users=5, n_resamples=100), QUICK, tmp_path / "e.parquet"
    )
    assert report.users_tested == 5
    assert report.training_events == evaluated().training_events


@pytest.mark.slow
def test_without_implicit_als_is_left_out_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("batchrec.evaluation.als.find_spec", lambda _: None)
    with caplog.at_level(logging.INFO, "batchrec"):
        report = evaluate(training_sequences(), EvaluationConfig(n_resamples=100), QUICK, tmp_path / "e.parquet")
    assert "als" not in by_method(report)
    (line,) = [record.getMessage() for record in caplog.records if "als is" in record.getMessage()]
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
        ("none.parquet", "none.parquet: is also an input"),
        ("theirs.parquet", "theirs.json: is also an input"),
    ],
)
def test_an_out_that_cannot_be_written_is_refused_before_training(
    out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.json").mkdir()
    inputs = ("--sequences", tmp_path / "none.parquet", "--recs", tmp_path / "theirs.json")
    arguments = (*inputs, "--out", tmp_path / out)
    assert message in assert_refused(arguments, 2, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("step", slow_except(["train", "score", "compare", "write_parquet"], "write_parquet"))
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
    pair = MethodPair("model", "popular", (low + high) / 2, low, high)
    assert verdicts([pair], ["model"], "popular", 10) == [f"model against popular: {verdict}"]


def test_the_package_offers_the_job() -> None:
    assert batchrec.evaluate is evaluate
    assert batchrec.EvaluationConfig is EvaluationConfig
