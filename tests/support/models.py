"""Tiny models, one per objective, trained once per test run, and helpers that compare with them."""

import json
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import settings
from safetensors.torch import load

from batchrec.arrays import Longs
from batchrec.benchmark.models import write_instant_graph
from batchrec.cli import run
from batchrec.config import EncoderShape, Objective, TrainingConfig
from batchrec.model.batching import Histories
from batchrec.model.blend import Blend, BlendSizes
from batchrec.model.directory import ENCODER, TRAINING_LOG, Model, load_model, write_manifest
from batchrec.model.graph import WEIGHTS
from batchrec.model.parts import blend_of
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import MASK, PAD
from batchrec.training.encoder import Encoder
from batchrec.training.train import train
from tests.support.shared import made_once

# One layer, because the other exports have two.
CONFIG = TrainingConfig(
    max_epochs=2, min_epoch_steps=1, n_layers=1, hidden_size=8, n_heads=2, max_len=8, device="cpu", blend="none"
)
SHAPE = EncoderShape(objective="causal", max_len=8, hidden_size=8, n_layers=1, n_heads=2, dropout=0.3)
# The same as command-line options.
SMALL = (
    *("--hidden-size", 8, "--max-len", 8, "--n-layers", 1),
    *("--max-epochs", 2, "--min-epoch-steps", 1, "--device", "cpu"),
)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
N_ITEMS = 40
Id = int | str

# No deadline: a test does not fail because the machine is slow.
settings.register_profile("untimed", deadline=None)
# An eighth of the examples, for `make test`; `make test-slow` runs all of them.
settings.register_profile("quick", parent=settings.get_profile("untimed"), max_examples=12)
settings.load_profile("untimed")
# One thread adds in one order, and the cores are left to the threads of the job.
torch.set_num_threads(1)


def examples(number: int) -> int:
    """Return the number of examples of a hypothesis test under the profile of this run."""
    return max(5, number // 8) if settings.get_current_profile_name() == "quick" else number


def sequences_table(
    histories: Mapping[Any, Sequence[Any]],
    user_type: pa.DataType | None = None,
    item_type: pa.DataType | None = None,
    also_seen: Mapping[Any, Sequence[Any]] | None = None,
) -> pa.Table:
    """One row per user of a mapping from users to their items, oldest first, and also_seen if given."""
    lists = pa.list_(item_type or pa.int64())
    table = pa.table(
        {
            "user_id": pa.array(list(histories), user_type or pa.int64()),
            "item_ids": pa.array(list(histories.values()), lists),
            "timestamps": pa.array([list(range(len(items))) for items in histories.values()], pa.list_(pa.int64())),
        }
    )
    if also_seen is None:
        return table
    return table.append_column("also_seen", pa.array([also_seen.get(user, []) for user in histories], lists))


def write_sequences(
    path: Path,
    histories: Mapping[Any, Sequence[Any]],
    user_type: pa.DataType | None = None,
    item_type: pa.DataType | None = None,
    also_seen: Mapping[Any, Sequence[Any]] | None = None,
) -> Path:
    pq.write_table(sequences_table(histories, user_type, item_type, also_seen), path)
    return path


def indexed(*histories: Sequence[int]) -> Histories:
    """Histories of item indexes."""
    items = [item for history in histories for item in history]
    return Histories(
        np.array(items, dtype=np.int32),
        np.cumsum([0, *(len(history) for history in histories)], dtype=np.int64),
    )


def write_graph(_: Encoder, folder: Path, __: Blend | None = None) -> None:
    """Write the instant graph, which ranks without computing, in the place of export_encoder."""
    write_instant_graph(folder)


def longs(values: Iterable[int]) -> Longs:
    return np.array(list(values), dtype=np.int64)


def zero_blend(vocabulary_size: int) -> Blend:
    """A blend that adds nothing: the scores are those of item_offsets and habits."""
    arrays: dict[str, Any] = {
        name: np.zeros(shape, np.int32 if name.endswith("neighbours") else np.float32)
        for name, shape in BlendSizes(1, 1).shapes(vocabulary_size).items()
    }
    blend = blend_of(arrays)
    assert blend is not None
    return blend


def small_encoder(vocabulary_size: int = 12, seed: int = 0, **options: Any) -> Encoder:
    """An encoder in evaluation mode, with weights so large that different histories get different scores."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder(vocabulary_size, replace(SHAPE, **{"max_len": 6, "n_layers": 2, **options}))
        with torch.no_grad():
            for weight in encoder.parameters():
                weight.normal_(std=0.5)
    return encoder.eval()


def training_histories() -> dict[int, list[int]]:
    """60 users with 2 to 22 events over the items 1000 to 1039; some items repeat."""
    chance = random.Random(7)  # noqa: S311 - a sample, no secret
    first = {1: [1000 + i for i in range(20)], 2: [1020 + i for i in range(20)]}
    others = {user: [1000 + chance.randrange(N_ITEMS) for _ in range(chance.randint(2, 22))] for user in range(3, 61)}
    return first | others


@cache
def training_sequences() -> Path:
    return made_once("sequences.parquet", partial(write_sequences, histories=training_histories()))


@cache
def model_of(objective: Objective) -> Path:
    """The model directory; its item ids are integers."""
    return made_once(objective, partial(train, training_sequences(), replace(CONFIG, objective=objective)))


def trained_model() -> Path:
    """The model directory of the default objective."""
    return model_of(CONFIG.objective)


@cache
def string_model() -> Path:
    """The same model with the item ids `item-1000` and so on."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for name in (ENCODER, WEIGHTS, TRAINING_LOG):
            shutil.copy(trained_model() / name, folder / name)
        vocabulary = load_model(trained_model()).vocabulary
        names = pa.array([f"item-{item}" for item in vocabulary.item_ids.to_pylist()])
        write_manifest(folder, Vocabulary(names, vocabulary.n_events), SHAPE, CONFIG, {})

    return made_once("string-model", make)


@cache
def trained_encoder(objective: Objective) -> Encoder:
    encoder = Encoder(N_ITEMS + 2, replace(SHAPE, objective=objective))
    encoder.load_state_dict(load(load_model(model_of(objective)).weights))
    return encoder.eval()


def known_items(model: Model) -> list[Id]:
    """The external ids in the order of the indexes, most frequent first."""
    items: list[Id] = model.vocabulary.item_ids.to_pylist()
    return items


def torch_scores(history: Iterable[Id], model: Model) -> dict[Id, float]:
    """The score of every item after one history, by torch; items that the model does not know are skipped."""
    items = known_items(model)
    indexes = {item: index for index, item in enumerate(items, start=2)}
    known = [indexes[item] for item in history if item in indexes]
    scores = next_item_scores(trained_encoder(model.manifest.shape.objective), known)
    return dict(zip(items, scores[2:], strict=True))


def next_item_scores(encoder: Encoder, history: Sequence[int]) -> list[float]:
    """The score of every index after one history of indexes, computing all places."""
    max_len = encoder.shape.max_len
    tokens = list(history[-max_len:]) if encoder.is_causal else [*history[-(max_len - 1) :], MASK]
    with torch.inference_mode():
        scores: list[float] = encoder.score_items(encoder(torch.tensor([tokens]))[0, -1:])[0].tolist()
    return scores


def tokens_of(*rows: Sequence[int], width: int | None = None) -> torch.Tensor:
    """Rows of indexes, with PAD on the right."""
    width = width or max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows], dtype=torch.int32)


def successions(n_items: int, n_users: int) -> dict[int, list[int]]:
    """Histories of 5 to 12 items from random starts: item i + 1 always follows item i, and the first the last."""
    chance = random.Random(3)  # noqa: S311 - a sample, no secret
    spans = [(chance.randrange(n_items), chance.randint(5, 12)) for _ in range(n_users)]
    return {user: [1000 + (start + place) % n_items for place in range(n)] for user, (start, n) in enumerate(spans)}


SUCCESSIONS = successions(n_items=30, n_users=120)
LEARNING = TrainingConfig(
    n_layers=1,
    hidden_size=32,
    learning_rate=0.005,
    dropout=0.0,
    last_mask_prob=0.5,
    max_epochs=12,
    patience=3,
    validation_users=30,
    device="cpu",
)


@cache
def succession_sequences() -> Path:
    """The histories of SUCCESSIONS without their last items."""
    shortened = {user: items[:-1] for user, items in SUCCESSIONS.items()}
    return made_once("successions.parquet", partial(write_sequences, histories=shortened))


@cache
def learned_model(objective: Objective) -> Path:
    """A model that has learned the successions."""
    return made_once(
        f"learned-{objective}", partial(train, succession_sequences(), replace(LEARNING, objective=objective))
    )


def training_log(model: Path) -> list[dict[str, Any]]:
    """The lines of training.jsonl, each a dictionary."""
    return [json.loads(line) for line in (model / TRAINING_LOG).read_text(encoding="utf-8").splitlines()]


def run_cli(*arguments: object) -> int:
    """Run a command and return its exit code."""
    return run([str(argument) for argument in arguments])


def names_in(folder: Path) -> set[str]:
    """The names in a folder, including hidden ones."""
    return {path.name for path in folder.iterdir()}


def assert_training_fails(sequences: Path, capsys: pytest.CaptureFixture[str], exit_code: int, *options: object) -> str:
    """Training fails with one line, which is returned, writes nothing, and leaves an older model as it was."""
    out = sequences.parent / "model"
    assert not out.exists()
    for older in (False, True):
        if older:
            shutil.copytree(trained_model(), out)
        capsys.readouterr()
        assert run_cli("train", "--sequences", sequences, "--out", out, *SMALL, *options) == exit_code
        said = capsys.readouterr()
        assert said.out == ""
        lines = [line for line in said.err.splitlines() if line.startswith("batchrec: error:")]
        assert len(lines) == 1
        assert out.exists() == older
        assert not [name for name in names_in(sequences.parent) if name.startswith(".")]
    assert load_model(out).manifest == load_model(trained_model()).manifest
    return lines[0]
