"""Held-out items: the last one of a sample of users, and the rank that a model gives it."""

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

# Scores of the vocabulary, (users, vocabulary) or one row for all, for the users of these numbers.
ScoreUsers = Callable[[Longs], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """Histories without their last item, and that item: (users,) int32 indexes."""

    histories: Histories
    items: Ints


@dataclass(frozen=True)
class Split:
    """Histories to train on, and what was held out of them."""

    training: Histories
    held_out: HeldOut


@dataclass(frozen=True)
class Accuracy:
    """NDCG@10 and HR@10 of the held-out items, ranked among all that the user has not seen."""

    ndcg: float
    hit_rate: float


def hold_out(histories: Histories, max_users: int, users: Longs) -> Split:
    """Take the last item of up to `max_users` users, at most half of all, in the order of `users`.

    users: (n,) int64, those whose last item may be held out, in some order. A user qualifies with two items or more, of
    which the last is new to them: one seen before is never recommended.
    Raises InputError where no user qualifies, or there is no second one to learn from.
    """
    if len(histories) < 2:
        raise InputError(
            "the sequences hold one user with a history; expected two or more, since the last item of some is held out"
        )
    is_qualified = (histories.lengths >= 2) & _last_is_new(histories)
    qualified = users[is_qualified[users]]
    if len(qualified) == 0 and is_qualified.any():
        raise InputError(
            "each history of two different items or more ends in the future, and its last item cannot be held out. "
            "Mend the times, or leave those events out"
        )
    if len(qualified) == 0:
        raise InputError("no history has two different items: there is nothing to learn from")
    chosen = np.sort(qualified[: max(1, min(max_users, len(qualified) // 2))])
    last = histories.offsets[chosen + 1] - 1
    kept = np.ones(len(histories.items), dtype=bool)
    kept[last] = False
    n_kept = np.concatenate([[0], np.cumsum(kept)])
    # Ties are with the item before: what goes is the last of a history, before which nothing changes.
    ties = None if histories.ties is None else histories.ties[kept]
    training = Histories(histories.items[kept], n_kept[histories.offsets], ties)
    return Split(training, HeldOut(training.take(chosen), histories.items[last]))


def _last_is_new(histories: Histories) -> NDArray[np.bool_]:
    """Tell for each user, (users,), whether the last item stands but once in the history."""
    ends = histories.offsets[1:]
    is_last = histories.items == np.repeat(histories.items[ends - 1], histories.lengths)
    n_last = np.concatenate([[0], np.cumsum(is_last)])
    is_new: NDArray[np.bool_] = n_last[ends] - n_last[histories.offsets[:-1]] == 1
    return is_new


def popularity_accuracy(split: Split, vocabulary_size: int) -> Accuracy:
    """Measure the ranking of all items by how often they stand in the training histories."""
    counts = np.bincount(split.training.items, minlength=vocabulary_size)
    places = np.empty(vocabulary_size, dtype=np.float32)
    places[np.argsort(-counts, kind="stable")] = np.arange(vocabulary_size)
    scores = -torch.from_numpy(places)
    return measure_accuracy(split.held_out, lambda users: scores.repeat(len(users), 1))


def encoder_accuracy(encoder: Encoder, held_out: HeldOut, check: Callable[[], None] | None = None) -> Accuracy:
    """Measure the encoder's ranking; it is left in evaluation mode.

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
            # Items of equal score rank before the held-out one, and so do all if its score is no number: scores that
            # are all the same earn nothing.
            ranks[users] = (~(scores < scores.gather(1, items[:, None]))).sum(dim=1).cpu().numpy()
    return Accuracy(ndcg(ranks, 10), hit_rate(ranks, 10))
