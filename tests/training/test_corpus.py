import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from batchrec.config import TrainingConfig
from batchrec.errors import ConfigError
from batchrec.model.batching import Histories
from batchrec.model.directory import load_model
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.corpus import read_corpus
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import hold_out
from batchrec.training.train import train
from tests.support.models import CONFIG, write_sequences

Users = Iterable[int | str]


def order_of(folder: Path, users: Users, seed: int = 0) -> list[int | str]:
    """The users in the order in which they are held out."""
    shuffled = random.Random(len(str(users))).sample(list(users), len(list(users)))  # noqa: S311 - no secret
    user_type = pa.string() if isinstance(shuffled[0], str) else pa.int64()
    sequences = write_sequences(folder / "sequences.parquet", {user: [7, 8] for user in shuffled}, user_type)
    holdout_users = read_corpus(sequences, seed).holdout_users.tolist()
    assert sorted(holdout_users) == list(range(len(shuffled)))
    return [shuffled[place] for place in holdout_users]


@pytest.mark.parametrize("users", [range(-50, 50), [f"user-{number}" for number in range(100)]], ids=["int", "str"])
def test_the_order_of_holding_out_is_the_same_every_night(users: Users, tmp_path: Path) -> None:
    everybody = list(users)
    tonight = order_of(tmp_path, everybody)
    for gone in (everybody[::2], everybody[30:], everybody[:1]):
        assert order_of(tmp_path, set(everybody) - set(gone)) == [user for user in tonight if user not in gone]


def test_the_order_depends_on_the_seed_and_not_on_user_ids(tmp_path: Path) -> None:
    orders = [order_of(tmp_path, range(100), seed) for seed in (0, 1, 2)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    for order in orders:
        # About half of the first half of the order comes from the first half of the ids.
        assert 10 < sum(int(user) < 50 for user in order[:50]) < 40


def test_histories_are_indexes_by_frequency(tmp_path: Path) -> None:
    histories = {1: [30, 10], 2: [], 3: [10, 20, 10], 4: [20]}
    corpus = read_corpus(write_sequences(tmp_path / "sequences.parquet", histories), 0)
    assert corpus.vocabulary.item_ids.to_pylist() == [10, 20, 30]
    assert corpus.vocabulary.n_events.tolist() == [3, 2, 1]
    assert corpus.histories.items.tolist() == [4, 2, 2, 3, 2, 3]
    # Users without a history teach nothing.
    assert corpus.histories.offsets.tolist() == [0, 2, 5, 6]


def weighed(path: Path, histories: dict[int, list[tuple[int, int, float]]], names: Iterable[str]) -> Path:
    """Write histories of item, time and weight."""
    columns = {"item_ids": pa.int64(), "timestamps": pa.int64(), "weights": pa.float32()}
    table = pa.table({"user_id": pa.array(list(histories), pa.int64())})
    for place, (name, type_) in enumerate(columns.items()):
        if name in names:
            values = [[event[place] for event in events] for events in histories.values()]
            table = table.append_column(name, pa.array(values, pa.list_(type_)))
    pq.write_table(table, path)
    return path


DAY = 86_400
# The newest event that is not in the future is that of user 1, at day 100; user 3's last one is in the year 9999.
EVENTS: dict[int, list[tuple[int, int, float]]] = {
    1: [(10, 0, 1.0), (11, 90 * DAY, 3.0), (12, 100 * DAY, 5.0)],
    2: [],
    3: [(10, 80 * DAY, 0.5), (13, 253_370_764_800, 2.0)],
}
PLAIN = ("item_ids", "timestamps")


@pytest.mark.parametrize("half_life", [None, 10.0, 0.5])
@pytest.mark.parametrize("names", [PLAIN, (*PLAIN, "weights")], ids=["plain", "weights"])
def test_weights_are_those_of_the_table_and_of_the_age(
    names: tuple[str, ...], half_life: float | None, tmp_path: Path
) -> None:
    corpus = read_corpus(weighed(tmp_path / "sequences.parquet", EVENTS, names), 0, half_life=half_life)
    expected = []
    for events in EVENTS.values():
        for _, moment, weight in events:
            age = max(0, 100 - moment / DAY)
            expected.append(
                (weight if "weights" in names else 1) * (1 if half_life is None else 0.5 ** (age / half_life))
            )
    if half_life is None and "weights" not in names:
        assert corpus.histories.weights is None
        assert corpus.vocabulary.weights is None
        return
    assert corpus.histories.weights is not None
    assert corpus.histories.weights.dtype == np.float32
    assert corpus.histories.weights.tolist() == pytest.approx(expected, rel=1e-6, abs=2e-30)
    items = [item for events in EVENTS.values() for item, *_ in events]
    of_item = {
        item: sum(weight for other, weight in zip(items, expected, strict=True) if other == item) for item in items
    }
    popularity = dict(zip(corpus.vocabulary.item_ids.to_pylist(), corpus.vocabulary.popularity.tolist(), strict=True))
    assert popularity == pytest.approx(of_item, rel=1e-6, abs=4e-30)
    assert (corpus.histories.weights > 0).all()


def test_weights_that_are_all_1_are_none(tmp_path: Path) -> None:
    ones = {user: [(item, moment, 1.0) for item, moment, _ in events] for user, events in EVENTS.items()}
    assert read_corpus(weighed(tmp_path / "sequences.parquet", ones, (*PLAIN, "weights")), 0).histories.weights is None


def test_weights_follow_their_events(tmp_path: Path) -> None:
    log = {user: [(item, item, item / 8) for item in range(user, user + 6)] for user in range(1, 9)}
    corpus = read_corpus(weighed(tmp_path / "sequences.parquet", log, (*PLAIN, "weights")), 0)

    def weights_by_id(histories: Histories) -> list[float]:
        return [float(corpus.vocabulary.item_ids[item - FIRST_ITEM].as_py()) / 8 for item in histories.items.tolist()]

    split = hold_out(corpus.histories, 3, corpus.holdout_users)
    parts = [
        split.training,
        split.held_out.histories,
        corpus.histories.take(np.array([5, 0])),
        corpus.histories.below(7),
    ]
    for histories in [corpus.histories, *parts]:
        assert histories.weights is not None
        assert 0 < len(histories.items) == len(histories.weights)
        assert histories.weights.tolist() == weights_by_id(histories)
        relative = histories.relative_weights
        assert relative is not None
        assert relative.mean() == pytest.approx(1)


@pytest.mark.usefixtures("no_export")
def test_a_heavier_item_is_ranked_above_a_frequent_one(tmp_path: Path) -> None:
    # After 1 comes 2 three times as often as 3, but 3 weighs ten times as much.
    log = {user: [(1, 0, 1.0), (3, 1, 10.0) if user % 4 == 0 else (2, 1, 1.0), (4, 2, 1.0)] for user in range(80)}
    config = replace(CONFIG, max_epochs=8, dropout=0.0, learning_rate=0.01)
    best = {}
    for names in (PLAIN, (*PLAIN, "weights")):
        train(weighed(tmp_path / "sequences.parquet", log, names), config, tmp_path / "model")
        weights = load((tmp_path / "model" / "weights.safetensors").read_bytes())
        model = load_model(tmp_path / "model")
        encoder = Encoder(model.vocabulary.size, model.manifest.shape).eval()
        encoder.load_state_dict(weights)
        tokens = torch.from_numpy(model.vocabulary.indexes(pa.array([1])))[None]
        scores = encoder.score_last_place(tokens)[0]
        often, heavy = model.vocabulary.indexes(pa.array([2, 3])).tolist()
        best[names] = 2 if scores[often] > scores[heavy] else 3
    assert best == {PLAIN: 2, (*PLAIN, "weights"): 3}


def test_a_half_life_is_an_option_of_a_training() -> None:
    for half_life in (0.0, -1.0, 1e7):
        with pytest.raises(ConfigError, match="--half-life"):
            TrainingConfig(half_life=half_life)
