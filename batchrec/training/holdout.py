"""Held-out items: the last item of a sample of users, and the accuracy of a model on them.

Popularity here answers: how well does a ranking by the number of events in the training part of the histories find the
held-out items? It is the baseline of training.jsonl and of the model's metrics (popularity_accuracy).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchrec.arrays import Ints, Longs
from batchrec.errors import InputError
from batchrec.model.batching import Histories, length_sorted, scoring_tokens, seen_pairs
from batchrec.model.metrics import hit_rate, ndcg
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder

_USERS_AT_A_TIME = 128

# Score the vocabulary for users given by their row numbers: (users, vocabulary).
ScoreUsers = Callable[[Longs], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """Histories without their last item, and that item: (users,) int32 indexes."""

    histories: Histories
    items: Ints


@dataclass(frozen=True)
class Split:
    """Histories to train on, and what was held out from them."""

    training: Histories
    held_out: HeldOut


@dataclass(frozen=True)
class Accuracy:
    """NDCG@10 and HR@10 of the held-out items, each ranked among all items that the user has not seen."""

    ndcg: float
    hit_rate: float


def hold_out(histories: Histories, max_users: int, users: Longs) -> Split:
    """Take the last item of up to `max_users` users, at most half of all, in the order of `users`.

    users: (n,) int64, the users whose last item may be held out. A user qualifies with two or more items whose last one
    is new to them, since items seen before are never recommended.
    Raises InputError if no user qualifies, or if there is no second user to learn from.
    """
    if len(histories) < 2:
        raise InputError(
            "the sequences hold one user with a history; expected two or more, since the last item of some users is "
            "held out"
        )
    is_qualified = (histories.lengths >= 2) & _last_is_new(histories)
    qualified = users[is_qualified[users]]
    if len(qualified) == 0 and is_qualified.any():
        raise InputError(
            "every history of two or more different items ends in the future, so its last item cannot be held out. "
            "Fix the timestamps, or leave those events out"
        )
    if len(qualified) == 0:
        raise InputError("no history has two different items: there is nothing to learn from")
    chosen = np.sort(qualified[: max(1, min(max_users, len(qualified) // 2))])
    last = histories.offsets[chosen + 1] - 1
    kept = np.ones(len(histories.items), dtype=bool)
    kept[last] = False
    # Ties refer to the item before. Only the last item of a history is removed, so no remaining tie changes.
    training = histories.keep(kept)
    return Split(training, HeldOut(training.take(chosen), histories.items[last]))


def _last_is_new(histories: Histories) -> NDArray[np.bool_]:
    """Return for each user, (users,), whether the last item occurs only once in the history."""
    ends = histories.offsets[1:]
    is_last = histories.items == np.repeat(histories.items[ends - 1], histories.lengths)
    n_last = np.concatenate([[0], np.cumsum(is_last)])
    is_new: NDArray[np.bool_] = n_last[ends] - n_last[histories.offsets[:-1]] == 1
    return is_new


def popularity_accuracy(split: Split, vocabulary_size: int) -> Accuracy:
    """Measure the ranking of all items by their number of events in the training histories."""
    counts = np.bincount(split.training.items, minlength=vocabulary_size)
    places = np.empty(vocabulary_size, dtype=np.float32)
    places[np.argsort(-counts, kind="stable")] = np.arange(vocabulary_size)
    scores = -torch.from_numpy(places)
    return measure_accuracy(split.held_out, lambda users: scores.repeat(len(users), 1))


def encoder_accuracy(encoder: Encoder, held_out: HeldOut, check: Callable[[], None] | None = None) -> Accuracy:
    """Measure the encoder's ranking; this leaves the encoder in evaluation mode.

    check: called between batches; what it raises ends the measurement.
    """
    encoder.eval()
    device = encoder.item_biases.device

    def score_users(users: Longs) -> Tensor:
        if check is not None:
            check()
        tokens = torch.from_numpy(scoring_tokens(held_out.histories, users, encoder.shape)).to(device)
        return encoder.score_last_place(tokens).float()

    return measure_accuracy(held_out, score_users)


def measure_accuracy(held_out: HeldOut, score_users: ScoreUsers) -> Accuracy:
    """Rank each user's held-out item among all items that are not in the user's history."""
    ranks = np.empty(len(held_out.items), dtype=np.int64)
    with torch.inference_mode():
        for users in length_sorted(held_out.histories.lengths, _USERS_AT_A_TIME):
            scores = score_users(users)
            seen = seen_pairs(held_out.histories, users)
            scores[:, :FIRST_ITEM] = -torch.inf
            scores[torch.from_numpy(seen.rows), torch.from_numpy(seen.items)] = -torch.inf
            items = torch.from_numpy(held_out.items[users]).long().to(scores.device)
            # Items of equal score rank before the held-out one, as do all items if its score is NaN: a model that
            # scores all items the same earns nothing.
            ranks[users] = (~(scores < scores.gather(1, items[:, None]))).sum(dim=1).cpu().numpy()
    return Accuracy(ndcg(ranks, 10), hit_rate(ranks, 10))
