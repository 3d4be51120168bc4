"""A model that knows habits: the days on which an item was taken count, wherever a user is scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.model.blend import Blend
from batchrec.model.directory import write_manifest
from batchrec.model.vocabulary import Vocabulary
from batchrec.scoring.score import score
from batchrec.training.export import write_encoder
from tests.engines.test_scoring_workers import OneWorker
from tests.support.engines import assert_same
from tests.support.models import CONFIG, small_encoder
from tests.support.shared import made_once

DAY = 86_400
ITEMS = list(range(100, 110))
CONFIGURED = ScoringConfig(device="cpu", top_k=3, seen="allow")


def write_model(folder: Path) -> None:
    """A model that ranks by the days on which items were taken, and by nothing else."""
    vocabulary = Vocabulary(pa.array(ITEMS), np.ones(len(ITEMS), np.int64))
    neighbours = np.zeros((vocabulary.size, 2), np.int32)
    blend = Blend(
        np.zeros(1, np.float32),
        np.zeros(vocabulary.size, np.float32),
        neighbours,
        neighbours.astype(np.float32),
        np.zeros(2, np.float32),
        np.array([0, 1], np.float32),
    )
    encoder = small_encoder(vocabulary.size)
    folder.mkdir()
    write_encoder(encoder, folder, blend)
    write_manifest(folder, vocabulary, encoder.shape, CONFIG, {}, blend.sizes)


@pytest.fixture
def model() -> Path:
    return made_once("habit-model", write_model)


def write_users(path: Path, users: dict[int, list[tuple[int, int]]]) -> Path:
    """Write sequences of events, each a time and an item."""
    columns = {
        "user_id": pa.array(list(users)),
        "item_ids": pa.array([[item for _, item in events] for events in users.values()]),
        "timestamps": pa.array([[moment for moment, _ in events] for events in users.values()]),
    }
    pq.write_table(pa.table(columns), path)
    return path


# Both have taken 100 twice and 101 twice; user 1 took 100 on two days and 101 on one, user 2 the other way around.
USERS = {
    1: [(0, 100), (DAY, 101), (DAY + 1, 101), (DAY + 2, 100)],
    2: [(0, 101), (DAY - 1, 100), (DAY - 1, 100), (DAY, 101)],
}


def scored(sequences: Path, model: Path, out: Path, **options: Any) -> dict[int, list[tuple[int, float]]]:
    score(sequences, model, replace(CONFIGURED, **options), out)
    rows = pq.read_table(out).to_pylist()
    return {user: [(row["item_id"], row["score"]) for row in rows if row["user_id"] == user] for user in USERS}


def test_days_count_once_and_old_ones_less(model: Path, tmp_path: Path) -> None:
    lists = scored(write_users(tmp_path / "sequences.parquet", USERS), model, tmp_path / "recs.parquet")
    both, last, first = np.log1p([1.9, 1, 0.9])
    assert [item for item, _ in lists[1][:2]] == [100, 101]
    assert [value for _, value in lists[1]] == pytest.approx([both, last, 0])
    assert [item for item, _ in lists[2][:2]] == [101, 100]
    assert [value for _, value in lists[2]] == pytest.approx([both, first, 0])


def test_a_user_whose_days_change_is_scored_again(model: Path, tmp_path: Path) -> None:
    before = write_users(tmp_path / "before.parquet", USERS)
    scored(before, model, tmp_path / "recs.parquet")
    # The items and their order stay.
    moved = {**USERS, 1: [(moment if place else -DAY, item) for place, (moment, item) in enumerate(USERS[1])]}
    moved[1][1] = (0, 101)
    after = write_users(tmp_path / "after.parquet", moved)
    report = score(
        after, model, replace(CONFIGURED, previous=str(tmp_path / "recs.parquet")), tmp_path / "next.parquet"
    )
    assert report.users_carried_over == 1
    assert scored(after, model, tmp_path / "plain.parquet")[1] != scored(before, model, tmp_path / "recs.parquet")[1]
    assert_same([tmp_path / "plain.parquet", tmp_path / "next.parquet"])


def test_workers_of_an_engine_know_the_days(model: Path, tmp_path: Path) -> None:
    sequences = write_users(tmp_path / "sequences.parquet", USERS)
    score(sequences, model, CONFIGURED, tmp_path / "plain.parquet")
    score(sequences, model, replace(CONFIGURED, engine="ray"), tmp_path / "ray.parquet", engine=OneWorker())
    assert_same([tmp_path / "plain.parquet", tmp_path / "ray.parquet"])
