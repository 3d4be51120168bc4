import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrec.arrays import Longs
from batchrec.config import Objective
from batchrec.errors import InputError
from batchrec.model.batching import Histories
from batchrec.model.metrics import hit_rate, ndcg
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.holdout import (
    Accuracy,
    HeldOut,
    Split,
    encoder_accuracy,
    hold_out,
    measure_accuracy,
    popularity_accuracy,
)
from tests.support.models import indexed, longs, next_item_scores, small_encoder

VOCABULARY_SIZE = 12
items = st.integers(FIRST_ITEM, VOCABULARY_SIZE - 1)
many_histories = st.lists(st.lists(items, max_size=8), min_size=2, max_size=10)


def new_item(history: list[int]) -> st.SearchStrategy[int]:
    """Draw an item that is not in a history: a history has at most 8 of the 10 items."""
    return st.sampled_from(sorted(set(range(FIRST_ITEM, VOCABULARY_SIZE)) - set(history)))


def lists_of(histories: Histories) -> list[list[int]]:
    return [histories.items[start:end].tolist() for start, end in pairwise(histories.offsets.tolist())]


def plain_accuracy(histories: list[list[int]], held: list[int], scores: list[list[float]]) -> Accuracy:
    """NDCG@10 and HR@10, user by user; items of equal score come before the held-out one."""
    gains, hits = [], []
    for history, item, own in zip(histories, held, scores, strict=True):
        others = [i for i in range(FIRST_ITEM, VOCABULARY_SIZE) if i not in history and i != item]
        rank = 1 + sum(own[other] >= own[item] for other in others)
        hits.append(rank <= 10)
        gains.append(1 / math.log2(rank + 1) if rank <= 10 else 0.0)
    return Accuracy(sum(gains) / len(gains), sum(hits) / len(hits))


def assert_close(accuracy: Accuracy, expected: Accuracy) -> None:
    assert (accuracy.ndcg, accuracy.hit_rate) == pytest.approx((expected.ndcg, expected.hit_rate))


def test_ndcg_and_hit_rate_by_hand() -> None:
    ranks = np.array([1, 3, 10, 11], dtype=np.int64)
    assert hit_rate(ranks, 10) == 0.75
    assert ndcg(ranks, 10) == pytest.approx((1 + 1 / 2 + 1 / math.log2(11) + 0) / 4)
    assert (hit_rate(ranks, 1), ndcg(ranks, 1)) == (0.25, 0.25)


@given(many_histories, st.integers(1, 12), st.data())
def test_held_out_items_are_the_new_last_items_of_the_first_users(
    histories: list[list[int]], most: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(histories))))
    qualified = [user for user in order if histories[user] and histories[user][-1] not in histories[user][:-1] != []]
    assume(qualified)
    split = hold_out(indexed(*histories), most, longs(order))
    chosen = sorted(qualified[: max(1, min(most, len(qualified) // 2))])
    assert lists_of(split.held_out.histories) == [histories[user][:-1] for user in chosen]
    assert split.held_out.later.items.tolist() == [histories[user][-1] for user in chosen]
    assert lists_of(split.training) == [
        history[:-1] if user in chosen else history for user, history in enumerate(histories)
    ]


@pytest.mark.parametrize(
    "histories",
    [
        [[2], [3], []],
        [[2, 2, 2], [3, 3]],
        [[2, 3, 2], [3, 2, 3]],
        [[2, 3]],
    ],
    ids=["nobody has two items", "the same item again", "no last item is new", "one user"],
)
def test_holding_out_needs_two_users_and_a_new_item(histories: list[list[int]]) -> None:
    with pytest.raises(InputError):
        hold_out(indexed(*histories), 10, longs(range(len(histories))))


@given(many_histories, st.data())
def test_measure_equals_a_plain_reference(histories: list[list[int]], data: st.DataObject) -> None:
    held = [data.draw(new_item(history)) for history in histories]
    # Few distinct scores, so that many are equal.
    scores = data.draw(
        st.lists(
            st.lists(st.integers(0, 4).map(float), min_size=VOCABULARY_SIZE, max_size=VOCABULARY_SIZE),
            min_size=len(histories),
            max_size=len(histories),
        )
    )
    held_out = HeldOut(indexed(*histories), indexed(*([item] for item in held)))
    accuracy = measure_accuracy(held_out, len(scores[0]), lambda users: torch.tensor(scores)[torch.from_numpy(users)])
    assert_close(accuracy, plain_accuracy(histories, held, scores))


@given(many_histories, many_histories, st.data())
def test_popularity_counts_events_of_the_training_histories(
    training: list[list[int]], histories: list[list[int]], data: st.DataObject
) -> None:
    held = [data.draw(new_item(history)) for history in histories]
    events = [item for history in training for item in history]
    # Items are numbered by frequency: of two equally frequent items, the lower index is more popular.
    scores = [[events.count(item) - item / 1000 for item in range(VOCABULARY_SIZE)]] * len(histories)
    held_out = HeldOut(indexed(*histories), indexed(*([item] for item in held)))
    accuracy = popularity_accuracy(
        Split(indexed(*training), held_out, held_out, np.ones(len(events), bool)), VOCABULARY_SIZE
    )
    assert_close(accuracy, plain_accuracy(histories, held, scores))


def test_accuracy_in_batches_equals_one_user_at_a_time(objective: Objective) -> None:
    encoder = small_encoder(VOCABULARY_SIZE, objective=objective, max_len=4)
    histories = [[2, 3, 4, 5, 6, 7], [8], [9, 2], [3, 3, 3, 3, 3], [10, 11]]
    held = [11, 3, 4, 5, 9]
    scores = [next_item_scores(encoder, history) for history in histories]
    held_out = HeldOut(indexed(*histories), indexed(*([item] for item in held)))
    assert_close(encoder_accuracy(encoder.train(), held_out), plain_accuracy(histories, held, scores))
    assert not encoder.training


def many_held_out(n_users: int) -> HeldOut:
    return HeldOut(indexed(*([2 + user % 9, 3] for user in range(n_users))), indexed(*[[11]] * n_users))


@pytest.mark.parametrize("score", [0.0, -5.0, 7.0, float("nan")])
def test_equal_scores_have_accuracy_0(score: float) -> None:
    size = 30
    accuracy = measure_accuracy(many_held_out(300), size, lambda users: torch.full((len(users), size), score))
    assert accuracy == Accuracy(0.0, 0.0)


def test_a_perfect_ranking_has_accuracy_1() -> None:
    best = torch.zeros(30)
    best[11] = 1.0

    def score_users(users: Longs) -> torch.Tensor:
        return best.repeat(len(users), 1)

    assert measure_accuracy(many_held_out(300), 30, score_users) == Accuracy(1.0, 1.0)


def test_many_items_are_scored_for_fewer_users_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.training.holdout._SCORES_AT_A_TIME", 100)
    best, scored = torch.zeros(30), []
    best[11] = 1.0

    def score_users(users: Longs) -> torch.Tensor:
        scored.append(len(users))
        return best.repeat(len(users), 1)

    assert measure_accuracy(many_held_out(10), 30, score_users) == Accuracy(1.0, 1.0)
    assert scored == [3, 3, 3, 1]
