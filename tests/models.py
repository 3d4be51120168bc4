"""A tiny model, trained once for all tests, and what is needed to compare with it."""

import atexit
import random
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import settings
from safetensors.torch import load_file

from batchrec.artifact import ENCODER, TRAINING_LOG, WEIGHTS, Model, load_model, write_manifest
from batchrec.batching import Histories
from batchrec.cli import run
from batchrec.config import TrainingConfig
from batchrec.encoder import Encoder
from batchrec.training import train
from batchrec.vocabulary import Vocabulary

# One layer, for the other exports have two.
CONFIG = TrainingConfig(max_epochs=2, min_epoch_steps=1, n_layers=1, hidden_size=8, n_heads=2, max_len=8, device="cpu")
N_ITEMS = 40
Id = int | str

# A slow machine breaks no promise.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# The cores are for the worker threads of a job, and one thread adds in one order.
torch.set_num_threads(1)


def sequences_table(
    histories: Mapping[Any, Sequence[Any]], user_type: pa.DataType | None = None, item_type: pa.DataType | None = None
) -> pa.Table:
    """A row a user of a mapping from users to their items, oldest first."""
    return pa.table(
        {
            "user_id": pa.array(list(histories), user_type or pa.int64()),
            "item_ids": pa.array(list(histories.values()), pa.list_(item_type or pa.int64())),
            "timestamps": pa.array([list(range(len(items))) for items in histories.values()], pa.list_(pa.int64())),
        }
    )


def write_sequences(
    path: Path,
    histories: Mapping[Any, Sequence[Any]],
    user_type: pa.DataType | None = None,
    item_type: pa.DataType | None = None,
) -> Path:
    pq.write_table(sequences_table(histories, user_type, item_type), path)
    return path


def indexed(*histories: Sequence[int]) -> Histories:
    """Histories of item indexes."""
    items = [item for history in histories for item in history]
    return Histories(
        np.array(items, dtype=np.int32),
        np.cumsum([0, *(len(history) for history in histories)], dtype=np.int64),
    )


def small_encoder(vocabulary_size: int = 12, seed: int = 0, **options: Any) -> Encoder:
    """An encoder in evaluation mode, with weights large enough that differences between histories show."""
    config = TrainingConfig(**{"hidden_size": 8, "n_heads": 2, "max_len": 6, **options})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder(vocabulary_size, config)
        with torch.no_grad():
            for weight in encoder.parameters():
                weight.normal_(std=0.5)
    return encoder.eval()


@cache
def scratch() -> Path:
    """A folder that lives as long as the test run."""
    folder = Path(tempfile.mkdtemp(prefix="batchrec-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def training_histories() -> dict[int, list[int]]:
    """60 users with 2 to 22 events over the items 1000 to 1039; some items come again."""
    chance = random.Random(7)  # noqa: S311 - a sample, no secret
    first = {1: [1000 + i for i in range(20)], 2: [1020 + i for i in range(20)]}
    others = {user: [1000 + chance.randrange(N_ITEMS) for _ in range(chance.randint(2, 22))] for user in range(3, 61)}
    return first | others


@cache
def training_sequences() -> Path:
    return write_sequences(scratch() / "sequences.parquet", training_histories())


@cache
def trained_model() -> Path:
    """The model directory; its item ids are integers."""
    train(training_sequences(), CONFIG, scratch() / "model")
    return scratch() / "model"


@cache
def string_model() -> Path:
    """The same model with the item ids `item-1000` and so on."""
    folder = scratch() / "string-model"
    folder.mkdir()
    for name in (ENCODER, WEIGHTS, TRAINING_LOG):
        shutil.copy(trained_model() / name, folder / name)
    vocabulary = load_model(trained_model()).vocabulary
    names = pa.array([f"item-{item}" for item in vocabulary.item_ids.to_pylist()])
    write_manifest(folder, Vocabulary(names, vocabulary.n_events), CONFIG, {})
    return folder


@cache
def trained_encoder() -> Encoder:
    encoder = Encoder(N_ITEMS + 2, CONFIG)
    encoder.load_state_dict(load_file(trained_model() / WEIGHTS))
    return encoder.eval()


def known_items(model: Model) -> list[Id]:
    """The external ids in the order of the indexes, most frequent first."""
    items: list[Id] = model.vocabulary.item_ids.to_pylist()
    return items


def torch_scores(history: Iterable[Id], model: Model) -> dict[Id, float]:
    """The score of every item after one history, by torch, one user at a time; the history as the model knows it."""
    items = known_items(model)
    places = {item: index for index, item in enumerate(items, start=2)}
    tokens = [*[places[item] for item in history if item in places][-(CONFIG.max_len - 1) :], 1]
    encoder = trained_encoder()
    with torch.inference_mode():
        states = encoder(torch.tensor([tokens]), torch.tensor([[len(tokens) - 1]]))[:, 0]
        scores = encoder.score_items(states)[0, 2:].tolist()
    return dict(zip(items, scores, strict=True))


def run_cli(*arguments: object) -> int:
    """Run a command and give its exit code."""
    return run([str(argument) for argument in arguments])


def names_in(folder: Path) -> set[str]:
    """What lies in a folder, hidden files too."""
    return {path.name for path in folder.iterdir()}
