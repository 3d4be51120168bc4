"""Logs that one simple rule explains: the model must rank nearly as well as that rule."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import EvaluationConfig, TrainingConfig
from batchrec.evaluation.evaluate import evaluate
from batchrec.evaluation.report import EvaluationReport

DAY, DAYS, N_USERS, N_ITEMS = 86_400, 60, 400, 120
TRAINING = TrainingConfig(hidden_size=16, n_layers=1, max_len=16, max_epochs=12, patience=4, threads=1, device="cpu")
Event = tuple[int, int]


def co_occurrence(chance: Random, _user: int) -> list[Event]:
    """Items of one of 12 baskets of 10 at random times, in random order."""
    basket = chance.randrange(12)
    items = chance.sample(range(basket * 10, basket * 10 + 10), 8)
    return [(item, chance.randrange(DAYS)) for item in items]


def recency(chance: Random, _user: int) -> list[Event]:
    """Any of the 40 newest items; two come out per day."""
    return [(100 + 2 * day - chance.randrange(40), day) for day in chance.sample(range(DAYS), 12)]


def habit(chance: Random, _user: int) -> list[Event]:
    """Three items of one's own, again and again, and now and then any other."""
    own = chance.sample(range(N_ITEMS), 3)
    return [
        (chance.choice(own) if chance.random() < 0.9 else chance.randrange(N_ITEMS), chance.randrange(DAYS))
        for _ in range(24)
    ]


def order(chance: Random, _user: int) -> list[Event]:
    """Item i + 1 after item i, from any start, on following days."""
    start, first = chance.randrange(N_ITEMS), chance.randrange(DAYS - 12)
    return [((start + step) % N_ITEMS, first + step) for step in range(12)]


def evaluated(
    events_of: Callable[[Random, int], list[Event]], options: EvaluationConfig, folder: Path
) -> EvaluationReport:
    chance = Random(5)  # noqa: S311 - a sample, no secret
    histories = [sorted(events_of(chance, user), key=lambda event: event[1]) for user in range(N_USERS)]
    table = pa.table(
        {
            "user_id": pa.array(range(N_USERS), pa.int64()),
            "item_ids": pa.array([[item for item, _ in history] for history in histories], pa.list_(pa.int64())),
            "timestamps": pa.array([[day * DAY for _, day in history] for history in histories], pa.list_(pa.int64())),
        }
    )
    pq.write_table(table, folder / "sequences.parquet")
    return evaluate(folder / "sequences.parquet", options, TRAINING, folder / "evaluation.parquet")


TEMPORAL = EvaluationConfig(protocol="temporal", test_days=7, n_resamples=100, als_factors=8)
PURE = {
    "co-occurrence": (co_occurrence, TEMPORAL, "item-to-item"),
    "recency": (recency, TEMPORAL, "popular, last 7 days"),
    "habit": (
        habit,
        EvaluationConfig(protocol="temporal", test_days=7, keep_seen=True, n_resamples=100, als_factors=8),
        "personal frequency",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("events_of", "options", "method"), PURE.values(), ids=PURE.keys())
def test_a_pure_log_is_served_nearly_as_well_as_by_its_method(
    events_of: Callable[[Random, int], list[Event]], options: EvaluationConfig, method: str, tmp_path: Path
) -> None:
    report = evaluated(events_of, options, tmp_path)
    ndcg = {entry.method: entry.ndcg for entry in report.methods}
    assert ndcg[method] > 1.5 * ndcg["popular"]
    assert ndcg["model"] >= 0.95 * ndcg[method]


@pytest.mark.slow
def test_a_log_of_pure_order_is_served_nearly_as_well_as_by_its_rule(tmp_path: Path) -> None:
    report = evaluated(order, EvaluationConfig(n_resamples=100, als_factors=8), tmp_path)
    # The rule ranks the next item first for every user.
    assert next(entry.ndcg for entry in report.methods if entry.method == "model") >= 0.95
