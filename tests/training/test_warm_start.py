import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pytest
import torch

from batchrec.config import Objective, TrainingConfig
from batchrec.errors import ConfigError
from batchrec.model.directory import load_model
from batchrec.model.vocabulary import Vocabulary
from batchrec.training.encoder import Encoder
from batchrec.training.train import train
from batchrec.training.warm_start import WarmStart
from tests.support.models import (
    CONFIG,
    LEARNING,
    Id,
    assert_training_fails,
    indexed,
    learned_model,
    longs,
    model_of,
    small_encoder,
    succession_sequences,
    trained_model,
    training_histories,
    training_log,
    training_sequences,
    write_sequences,
)
from tests.support.params import masked_is_slow

OLD: list[Id] = [70, 30, 50, 10]
NEW: dict[str, list[Id]] = {
    "the same": [70, 30, 50, 10],
    "reordered": [10, 50, 30, 70],
    "shrunk": [50, 70],
    "grown": [70, 90, 30, 50, 95, 10, 99],
    "grown at the top": [90, 70, 30, 50, 10],
    "replaced but for one": [90, 95, 10],
    "text": ["70", "x", "30", "10"],
}


def vocabulary_of(items: Sequence[Id]) -> Vocabulary:
    return Vocabulary(pa.array(items), longs(list(range(len(items), 0, -1))))


def warm_started(items: Sequence[Id], histories: Sequence[Sequence[Id]] = ()) -> tuple[Encoder, Encoder]:
    """An encoder of OLD, and one of `items` that starts from it."""
    old, new = small_encoder(len(OLD) + 2, seed=1), small_encoder(len(items) + 2, seed=2)
    start = WarmStart(old.shape, vocabulary_of(OLD), old.state_dict())
    table = indexed(*([items.index(item) + 2 for item in history] for history in histories))
    n_new = start.load_into(new, vocabulary_of(items), table)
    assert n_new == len({str(item) for item in items} - {str(item) for item in OLD})
    return old, new


@pytest.mark.parametrize("items", NEW.values(), ids=NEW.keys())
def test_items_keep_what_was_learned_of_them_by_id(items: list[Id]) -> None:
    old, new = warm_started(items)
    before = {str(item): index for index, item in enumerate(OLD, start=2)}
    for index, item in enumerate(items, start=2):
        if str(item) in before:
            assert torch.equal(new.item_embeddings.weight[index], old.item_embeddings.weight[before[str(item)]])
            assert new.item_biases[index] == old.item_biases[before[str(item)]]
    weights = new.state_dict()
    for name, weight in old.state_dict().items():
        if name.startswith("item_"):
            # PAD and MASK do not change.
            assert torch.equal(weights[name][:2], weight[:2])
        else:
            assert torch.equal(weights[name], weight), name


def test_a_new_item_starts_between_its_neighbours() -> None:
    histories: list[list[Id]] = [[70, 90, 30], [90, 50, 70], [95, 90, 10], [99], [50, 50, 10], [10, 95], [95, 10]]
    items: list[Id] = [70, 90, 30, 50, 95, 10, 99]
    old, new = warm_started(items, histories)
    known = {item: old.item_embeddings.weight[index].tolist() for index, item in enumerate(OLD, start=2)}
    for item in (90, 95, 99):
        pairs = [pair for history in histories for pair in pairwise(history)]
        neighbours = [two for one, two in pairs if one == item] + [one for one, two in pairs if two == item]
        averaged = [known[neighbour] for neighbour in neighbours if neighbour in known] or list(known.values())
        expected = [fmean(column) for column in zip(*averaged, strict=True)]
        assert new.item_embeddings.weight[items.index(item) + 2].tolist() == pytest.approx(expected, abs=1e-6)
        # 99 has no neighbours: it gets the mean of all known items.
        assert len(averaged) == {90: 4, 95: 2, 99: 4}[item]


@pytest.mark.parametrize(
    ("items", "biases"),
    [
        # The biases of 70, 30, 50 and 10 are 4, 2, 1 and 0.
        ([70, 90, 30], [4, 3, 2]),
        ([30, 91, 92, 93, 10], [2, 1.5, 1, 0.5, 0]),
        ([90, 91, 70], [4, 4, 4]),
        ([50, 90, 91], [1, 1, 1]),
    ],
    ids=["between two", "among several", "more frequent than all", "less frequent than all"],
)
def test_a_new_item_has_the_bias_of_items_about_as_frequent(items: list[Id], biases: list[float]) -> None:
    old, new = small_encoder(len(OLD) + 2), small_encoder(len(items) + 2)
    with torch.no_grad():
        old.item_biases.copy_(torch.tensor([-9.0, -9.0, 4.0, 2.0, 1.0, 0.0]))
    WarmStart(old.shape, vocabulary_of(OLD), old.state_dict()).load_into(new, vocabulary_of(items), indexed())
    assert new.item_biases[2:].tolist() == pytest.approx(biases)


def test_a_training_does_not_start_from_a_model_that_knows_no_item() -> None:
    with pytest.raises(ConfigError, match="--init-from"):
        warm_started([1, 2, 3], [[1, 2], [3]])


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "sequences.parquet", training_histories())


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--objective", "masked", "causal"),
        ("--max-len", 9, 8),
        ("--hidden-size", 16, 8),
        ("--n-layers", 2, 1),
        ("--n-heads", 4, 2),
    ],
)
def test_an_option_for_another_shape_is_refused(
    option: str, value: object, expected: object, sequences: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = assert_training_fails(sequences, capsys, 2, "--init-from", trained_model(), option, value)
    assert f"{option} {value}" in said
    assert f"Pass {option} {expected}" in said


@masked_is_slow
@pytest.mark.usefixtures("no_export")
def test_sizes_default_to_those_of_the_earlier_model(objective: Objective, tmp_path: Path) -> None:
    config = TrainingConfig(
        objective=objective, init_from=str(model_of(objective)), n_layers=1, dropout=0.5, max_epochs=1, device="cpu"
    )
    report = train(training_sequences(), config, tmp_path / "model")
    shape = json.loads((model_of(objective) / "manifest.json").read_text(encoding="utf-8"))["encoder"]
    assert report.encoder == shape | {"dropout": 0.5}


@pytest.mark.parametrize("name", ["weights.safetensors", "items.parquet", "manifest.json"])
def test_a_training_does_not_start_from_a_damaged_model(
    name: str, sequences: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(trained_model(), sequences.parent / "older"))
    (damaged / name).write_bytes((damaged / name).read_bytes()[:-1])
    assert "older" in assert_training_fails(sequences, capsys, 4, "--init-from", damaged)


def test_a_training_does_not_start_from_a_missing_model(sequences: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in assert_training_fails(sequences, capsys, 4, "--init-from", "nowhere")


@masked_is_slow
@pytest.mark.usefixtures("no_export")
def test_training_from_a_model_starts_where_it_ended(objective: Objective, tmp_path: Path) -> None:
    def first_epoch(name: str, **options: Any) -> dict[str, Any]:
        config = replace(LEARNING, objective=objective, max_epochs=1, min_epoch_steps=1, **options)
        train(succession_sequences(), config, tmp_path / name)
        (line,) = training_log(tmp_path / name)
        return line

    fresh, next_night = first_epoch("fresh"), first_epoch("next", init_from=str(learned_model(objective)))
    last_night = max(line["ndcg_at_10"] for line in training_log(learned_model(objective)))
    assert next_night["ndcg_at_10"] > last_night - 0.05 > fresh["ndcg_at_10"] + 0.3
    assert next_night["loss"] < fresh["loss"] - 1


@pytest.mark.usefixtures("no_export")
def test_a_model_may_be_its_own_start(tmp_path: Path) -> None:
    shutil.copytree(trained_model(), tmp_path / "model")
    config = replace(CONFIG, init_from=str(tmp_path / "model"))
    report = train(training_sequences(), config, tmp_path / "model")
    assert load_model(tmp_path / "model").manifest.model_id == report.model_id
    assert report.model_id != load_model(trained_model()).manifest.model_id
