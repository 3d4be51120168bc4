import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from batchrec.config import Objective, TrainingConfig
from batchrec.errors import BatchrecError, ConfigError
from batchrec.model.directory import load_model
from batchrec.training import train as training
from batchrec.training.corpus import read_corpus
from batchrec.training.holdout import hold_out
from batchrec.training.loop import Epoch, FitResult, fit
from batchrec.training.train import train
from tests.support.models import (
    CONFIG,
    N_ITEMS,
    SHAPE,
    SMALL,
    assert_training_fails,
    names_in,
    run_cli,
    sequences_table,
    trained_model,
    training_histories,
    training_log,
    training_sequences,
    write_sequences,
)


@pytest.mark.usefixtures("no_export")
def test_one_seed_gives_one_model_and_another_seed_another(objective: Objective, tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        # Earlier draws from the global generators have no effect.
        torch.rand(3)
        np.random.rand(3)
        train(training_sequences(), replace(CONFIG, objective=objective, seed=seed), tmp_path / name)
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "again", "other")]
    assert weights[0] == weights[1] != weights[2]
    logs = [
        [{name: value for name, value in line.items() if name != "seconds"} for line in training_log(tmp_path / model)]
        for model in ("one", "again", "other")
    ]
    assert logs[0] == logs[1] != logs[2]
    ids = [load_model(tmp_path / name).manifest.model_id for name in ("one", "again", "other")]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.usefixtures("no_export")
def test_training_restores_the_global_generator(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    train(training_sequences(), CONFIG, tmp_path / "model")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_report_says_what_was_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert run_cli("train", "--sequences", training_sequences(), "--out", out, *SMALL, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["users"], report["items"], report["device"], report["epochs"]) == (60, N_ITEMS, "cpu", 2)
    assert 1 <= report["held_out_users"] <= 30
    assert report["model_id"] == load_model(out).manifest.model_id
    assert 0 <= report["onnx_difference"] < 1e-4
    assert (report["processes"], report["ended_by"], report["negatives"]) == (1, "max_epochs", 0)
    assert report["encoder"] == asdict(SHAPE)
    assert report["out"] == str(out)
    assert names_in(tmp_path) == {"model"}


def test_the_log_holds_every_figure_of_every_epoch() -> None:
    lines = training_log(trained_model())
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert set(line) == {
            "epoch",
            "loss",
            "ndcg_at_10",
            "hr_at_10",
            "popularity_ndcg_at_10",
            "popularity_hr_at_10",
            "seconds",
        }
        assert all(math.isfinite(value) for value in line.values())
        assert 0 <= line["ndcg_at_10"] <= line["hr_at_10"] <= 1
    # The loss of an untrained model is about the logarithm of the vocabulary size.
    assert lines[0]["loss"] == pytest.approx(math.log(N_ITEMS + 2), abs=0.3)


def test_the_manifest_holds_the_options_and_the_best_metrics() -> None:
    manifest = load_model(trained_model()).manifest
    best = max(training_log(trained_model()), key=lambda line: float(line["ndcg_at_10"]))
    assert manifest.metrics == {name: value for name, value in best.items() if name.endswith("_at_10")}
    assert TrainingConfig(**manifest.config) == replace(CONFIG, validate="last-item")


def test_the_vocabulary_counts_held_out_events_too() -> None:
    vocabulary = load_model(trained_model()).vocabulary
    events = [item for history in training_histories().values() for item in history]
    counts = dict(zip(vocabulary.item_ids.to_pylist(), vocabulary.n_events.tolist(), strict=True))
    assert counts == {item: events.count(item) for item in events}
    order = sorted(counts, key=lambda item: (-counts[item], item))
    assert vocabulary.item_ids.to_pylist() == order


def test_an_error_after_the_fit_leaves_the_older_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Path(shutil.copytree(trained_model(), tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("batchrec.training.export.export_encoder", fail)
    with pytest.raises(ZeroDivisionError):
        train(training_sequences(), replace(CONFIG, seed=1), model)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert names_in(tmp_path) == {"model"}


def test_an_error_of_a_callback_leaves_the_older_model_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained_model(), tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def fail(epoch: Epoch) -> None:
        raise ZeroDivisionError(epoch.epoch)

    arguments = training_sequences(), replace(CONFIG, seed=1), model, tmp_path / "checkpoints"
    with pytest.raises(ZeroDivisionError, match=r"^1$"):
        train(*arguments, on_epoch=fail)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert names_in(tmp_path) == {"model", "checkpoints"}
    # The epoch was done: its figures are not told again.
    with pytest.raises(ZeroDivisionError, match=r"^2$"):
        train(*arguments, on_epoch=fail)


@pytest.mark.usefixtures("no_export")
def test_a_callback_gets_the_rows_of_the_training_log(tmp_path: Path) -> None:
    told: list[Epoch] = []
    train(training_sequences(), CONFIG, tmp_path / "model", on_epoch=told.append)
    assert [asdict(epoch) for epoch in told] == training_log(tmp_path / "model")
    assert len(told) == CONFIG.max_epochs


@pytest.mark.usefixtures("no_export")
def test_a_second_training_replaces_the_first_model(tmp_path: Path) -> None:
    first = train(training_sequences(), CONFIG, tmp_path / "model")
    second = train(training_sequences(), replace(CONFIG, seed=1), tmp_path / "model")
    assert load_model(tmp_path / "model").manifest.model_id == second.model_id != first.model_id
    assert names_in(tmp_path) == {"model"}


@pytest.mark.usefixtures("no_export")
def test_an_untrained_model_ranks_by_popularity(tmp_path: Path) -> None:
    config = replace(CONFIG, learning_rate=1e-30, max_epochs=1)
    train(training_sequences(), config, tmp_path / "model")
    corpus = read_corpus(training_sequences(), config.seed)
    items = hold_out(corpus.histories, config.validation_users, corpus.holdout_users).training.items.tolist()
    counts = [items.count(index) + 0.5 for index in range(N_ITEMS + 2)]
    biases = load(load_model(tmp_path / "model").weights)["item_biases"].tolist()
    assert biases == pytest.approx([math.log(count / fmean(counts)) for count in counts], abs=1e-5)


TOO_LITTLE: dict[str, dict[int, list[int]]] = {
    "one user": {1: [1001, 1002, 1003]},
    "one item": {1: [1001], 2: [1001]},
    "one item often": {1: [1001, 1001], 2: [1001, 1001]},
    "nobody with two items": {1: [1001], 2: [1002], 3: [1003]},
    "one history of two items, of which one is held out": {1: [1001, 1002], 2: [1001]},
    "no user": {},
    "no events": {1: [], 2: []},
}


@pytest.mark.parametrize("histories", TOO_LITTLE.values(), ids=TOO_LITTLE.keys())
def test_too_little_to_learn_from_is_refused(
    histories: dict[int, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_training_fails(write_sequences(tmp_path / "sequences.parquet", histories), capsys, 3)


lists = pa.list_(pa.int64())
BROKEN_COLUMNS: dict[str, tuple[str, pa.Array]] = {
    "null item": ("item_ids", pa.array([[1001, None], [1003, 1004]], lists)),
    "null list": ("item_ids", pa.array([[1001, 1002], None], lists)),
    "ragged lists": ("item_ids", pa.array([[1001], [1003, 1004]], lists)),
    "backwards time": ("timestamps", pa.array([[2, 1], [3, 4]], lists)),
    "repeated user": ("user_id", pa.array([1, 1])),
    "null user": ("user_id", pa.array([1, None])),
    "float items": ("item_ids", pa.array([[1.5, 2.0], [1.0, 2.0]])),
}


@pytest.mark.parametrize(("column", "values"), BROKEN_COLUMNS.values(), ids=BROKEN_COLUMNS.keys())
def test_sequences_that_break_the_contract_are_refused(
    column: str, values: pa.Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = sequences_table({1: [1001, 1002], 2: [1003, 1004]}).to_pydict()
    pq.write_table(pa.table(table | {column: values}), tmp_path / "sequences.parquet")
    assert "sequences.parquet" in assert_training_fails(tmp_path / "sequences.parquet", capsys, 3)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_pages_that_are_garbage_are_refused(column: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    chunk = pq.ParquetFile(sequences).metadata.row_group(0).column(column)
    contents = bytearray(sequences.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    contents[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    sequences.write_bytes(contents)
    assert "sequences.parquet" in assert_training_fails(sequences, capsys, 3)


def test_missing_sequences_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "build-sequences" in assert_training_fails(tmp_path / "sequences.parquet", capsys, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    assert "--device" in assert_training_fails(sequences, capsys, 5, "--device", "cuda")


@pytest.mark.parametrize(
    "options",
    [
        ("--n-heads", 3),
        ("--max-len", 1),
        ("--dropout", 1),
        ("--mask-prob", 0),
        ("--mask-prob", 1.5),
        ("--last-mask-prob", -0.1),
        ("--learning-rate", 0),
        ("--learning-rate", "nan"),
        ("--weight-decay", "nan"),
        ("--weight-decay", 1e30),
        ("--seed", -1),
        ("--seed", 2**64),
        ("--max-epochs", -1),
        ("--min-epoch-steps", 0),
        ("--patience", 0),
        ("--validation-users", 0),
        ("--batch-size", 0),
        ("--learning-rate", 1.5),
        ("--learning-rate", "inf"),
        ("--objective", "both"),
        ("--precision", "fp64"),
        ("--negatives", -1),
        ("--threads", 0),
        ("--threads", 1025),
        ("--max-minutes", 0),
        ("--max-minutes", "nan"),
        ("--out", "missing/model"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    options: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    assert str(options[0]) in assert_training_fails(sequences, capsys, 2, *options)


@pytest.mark.parametrize("name", ["thesis.txt", "thesis"])
def test_training_replaces_only_a_model(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    if name == "thesis":
        out.mkdir()
    (out / "chapter" if out.is_dir() else out).write_text("1", encoding="utf-8")
    with pytest.raises(ConfigError, match="thesis"):
        train(training_sequences(), CONFIG, out)
    assert (out / "chapter" if out.is_dir() else out).read_text(encoding="utf-8") == "1"
    assert names_in(tmp_path) == {name}


@pytest.mark.usefixtures("no_export")
def test_string_items_are_trained_on(tmp_path: Path) -> None:
    histories = {f"u{user}": [f"item {place}" for place in range(user % 5 + 2)] for user in range(10)}
    sequences = write_sequences(tmp_path / "sequences.parquet", histories, pa.large_string(), pa.string())
    train(sequences, CONFIG, tmp_path / "model")
    loaded = load_model(tmp_path / "model").vocabulary
    assert loaded.item_ids.to_pylist() == [f"item {place}" for place in range(6)]
    assert loaded.item_ids.type == pa.string()


@pytest.mark.usefixtures("no_export")
def test_two_users_are_enough(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1001, 1002], 2: [1002, 1001]})
    report = train(sequences, CONFIG, tmp_path / "model")
    assert (report.users, report.items, report.held_out_users) == (2, 2, 1)


def test_errors_are_of_the_packages_own_kind() -> None:
    with pytest.raises(BatchrecError):
        train(Path("nowhere.parquet"), CONFIG, Path("nowhere/model"))


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(("given", "cores", "expected"), [(3, 8, 3), (None, 8, 4), (None, 2, 2)])
def test_threads_are_those_given_or_those_available(
    given: int | None, cores: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def fit_once(*arguments: Any) -> FitResult:
        used.append(torch.get_num_threads())
        return fit(*arguments)

    monkeypatch.setattr(training, "fit", fit_once)
    monkeypatch.setattr("batchrec.training.devices.n_cores", lambda: cores)
    before = torch.get_num_threads()
    # The threads that the environment gave OpenMP.
    torch.set_num_threads(4)
    try:
        train(training_sequences(), replace(CONFIG, max_epochs=1, threads=given), tmp_path / "model")
        assert (used, torch.get_num_threads()) == ([expected], 4)
    finally:
        torch.set_num_threads(before)
