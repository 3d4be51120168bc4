import random
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from batchrec.training.corpus import read_corpus
from tests.support.models import write_sequences

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
