"""Held-out items: what a sample of users took last, or after a point in time, and the accuracy of a model on them.

Popularity here answers: how well does a ranking by the number of events in the training part of the histories find the
held-out items? It is the baseline of training.jsonl and of the model's metrics (popularity_accuracy).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchrec.arrays import Bools, Longs
from batchrec.errors import InputError
from batchrec.model.batching import NO_PAIRS, Histories, SeenPairs, length_sorted, scoring_tokens, seen_pairs
from batchrec.model.metrics import user_ndcg
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder

# Beyond a million items, fewer users: 512 MiB of scores.
_USERS_AT_A_TIME, _SCORES_AT_A_TIME = 128, 1 << 27
_K = 10

# Score the vocabulary for users given by their row numbers: (users, vocabulary).
ScoreUsers = Callable[[Longs], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """Histories, and the items that each user took later: a row per user in both, every user has some, each once.

    keep_seen: whether items of the history may be recommended, and are among the later ones.
    """

    histories: Histories
    later: Histories
    keep_seen: bool = False

    def excluded(self, users: Longs) -> SeenPairs:
        """List the items that users, row r for users[r], may not get."""
        return NO_PAIRS if self.keep_seen else seen_pairs(self.histories, users)


@dataclass(frozen=True)
class TrainingPart:
    """Histories to train on; kept: (events,) bool, which events of the corpus they hold."""

    histories: Histories
    kept: Bools


@dataclass(frozen=True)
class Split:
    """Histories to train on, and what was held out from them; kept: (events,) bool, which events are trained on.

    qualified: later items that the chosen model has not seen, those of held_out and of other users: the blend is
    fitted on them. refit: what the chosen model is refitted on; None if it is final.
    """

    training: Histories
    held_out: HeldOut
    qualified: HeldOut
    kept: Bools
    refit: TrainingPart | None = None

    @property
    def final(self) -> TrainingPart:
        """Return the histories that the model is trained on last."""
        return self.refit or TrainingPart(self.training, self.kept)


@dataclass(frozen=True)
class Accuracy:
    """NDCG@10 and HR@10 of the later items, ranked among all items that the user may get."""

    ndcg: float
    hit_rate: float

    def named(self, prefix: str = "") -> dict[str, Any]:
        """Return both by the names that they have in reports and in the manifest."""
        return {f"{prefix}ndcg_at_10": self.ndcg, f"{prefix}hr_at_10": self.hit_rate}


def hold_out(histories: Histories, max_users: int, users: Longs, keep_seen: bool = False) -> Split:
    """Take the last item of up to `max_users` users, at most half of all, in the order of `users`.

    users: (n,) int64, the users whose last item may be held out. A user qualifies with two or more items whose last one
    is new to them, unless keep_seen, since otherwise items seen before are never recommended.
    Raises InputError if no user qualifies, or if there is no second user to learn from.
    """
    if len(histories) < 2:
        raise InputError(
            "the sequences hold one user with a history; expected two or more, since the last item of some users is "
            "held out"
        )
    is_qualified = (histories.lengths >= 2) & (_last_is_new(histories) | keep_seen)
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
    later = Histories(histories.items[last], np.arange(len(chosen) + 1))
    held_out = HeldOut(training.take(chosen), later, keep_seen)
    return Split(training, held_out, held_out, kept)


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
    return measure_accuracy(split.held_out, vocabulary_size, lambda users: scores.repeat(len(users), 1))


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

    return measure_accuracy(held_out, encoder.item_biases.numel(), score_users)


def measure_accuracy(held_out: HeldOut, vocabulary_size: int, score_users: ScoreUsers) -> Accuracy:
    """Rank each user's later items among all items that the user may get."""
    n_users = max(1, min(_USERS_AT_A_TIME, _SCORES_AT_A_TIME // vocabulary_size))
    ndcgs, hits = np.zeros(len(held_out.later)), np.zeros(len(held_out.later))
    with torch.inference_mode():
        for users in length_sorted(held_out.histories.lengths, n_users):
            scores = score_users(users)
            excluded = held_out.excluded(users)
            scores[:, :FIRST_ITEM] = -torch.inf
            scores[torch.from_numpy(excluded.rows), torch.from_numpy(excluded.items)] = -torch.inf
            later = seen_pairs(held_out.later, users)
            ranks = _ranks(scores, torch.from_numpy(later.rows), torch.from_numpy(later.items))
            ndcgs[users] = user_ndcg(ranks, later.rows, held_out.later.lengths[users], _K)
            hits[users] = np.bincount(later.rows, ranks <= _K, len(users)) > 0
    return Accuracy(float(ndcgs.mean()), float(hits.mean()))


def _ranks(scores: Tensor, rows: Tensor, items: Tensor) -> Longs:
    """Return the rank of each pair of a row and an item, from 1, or a number above K if it is not in the first K.

    Items of equal score rank before the item, as do all items if its score is NaN: a model that scores all items the
    same earns nothing.
    """
    rows, items = rows.to(scores.device), items.to(scores.device)
    best = scores.topk(min(_K, scores.shape[1])).values
    worst = best[:, -1:]
    n_up_to_worst = (~(scores < worst)).sum(dim=1)
    of_pairs = scores[rows, items][:, None]
    ranks = torch.where(of_pairs[:, 0] > worst[rows, 0], (~(best[rows] < of_pairs)).sum(dim=1), n_up_to_worst[rows])
    is_within = of_pairs[:, 0] >= worst[rows, 0]
    outcome: Longs = torch.where(is_within, ranks, _K + 1).cpu().numpy()
    return outcome
