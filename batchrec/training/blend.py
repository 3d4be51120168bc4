"""Blend the encoder with simple signals: weights that are fitted on held-out items, then one array per part."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from batchrec.arrays import Bools, Floats, Longs
from batchrec.model.batching import scoring_tokens, visible_events
from batchrec.model.blend import Blend, habit_columns, habits
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.blend_fit import FittedWeights, fit_weights
from batchrec.training.candidates import Candidates
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Accuracy, HeldOut, measure_accuracy
from batchrec.training.ranking_graph import NextItemRanker
from batchrec.training.shares import part_shares
from batchrec.training.signals import Signals

# Newest events of a history whose neighbours are added.
_RECENT_EVENTS = 20
# Users to fit on, the best items of each signal per user, and other items drawn at random to stand for the rest.
_USERS = 2000
_BEST, _OTHERS = 50, 200
_SCORES = 1 << 22
# Scores of each signal in all, which make the users fewer beyond a million items: every user then takes a second.
_ALL_SCORES = 1 << 31

_ENCODER, _NEIGHBOURS, _NEWEST_NEIGHBOURS = "encoder", "neighbours", "neighbours_of_the_newest"
_TIMES_TAKEN, _DAYS_TAKEN = "times_taken", "days_taken"
# The part of each signal that is not a popularity.
_PARTS = {
    _ENCODER: "encoder",
    _NEIGHBOURS: "neighbours",
    _NEWEST_NEIGHBOURS: "neighbours",
    _TIMES_TAKEN: "habit",
    _DAYS_TAKEN: "habit",
}


def fit_blend(
    encoder: Encoder, signals: Signals, held_out: HeldOut, seed: int, has_encoder: bool = True
) -> FittedWeights:
    """Fit the weight of the encoder and of each signal on held-out items, on a sample of the users.

    has_encoder: whether the encoder is trained; if not, it has no weight.
    """
    generator = np.random.default_rng(seed)
    # An item is in the vocabulary before its first event only because it is taken later: it would look relevant for
    # being unknown. Without any other item there is nothing else to fit on.
    is_known = signals.popularity["popular"] > 0
    if not is_known[held_out.later.items].any():
        is_known[FIRST_ITEM:] = True
    held_out = replace(held_out, later=held_out.later.keep(is_known[held_out.later.items]))
    n_fitted = min(_USERS, max(1, _ALL_SCORES // encoder.item_biases.numel()))
    users = np.sort(generator.permutation(np.flatnonzero(held_out.later.lengths))[:n_fitted])
    sources = _Sources(encoder.eval(), signals, held_out, is_known, has_encoder)
    parts = [sources.candidates(int(user), values, generator) for user, values in sources.values(users)]
    values, is_relevant, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    lengths = np.array([len(part[0]) for part in parts])
    candidates = Candidates(values, is_relevant, counts, np.cumsum(lengths) - lengths, held_out.later.lengths[users])
    fitted = fit_weights(candidates, sources.names)
    part_of = {name: _PARTS.get(name, "popularity") for name in sources.names}
    return replace(fitted, shares=part_shares(candidates, fitted.weights, part_of))


def make_blend(weights: dict[str, float], encoder: Encoder, signals: Signals) -> Blend:
    """Return the blend of an encoder and signals by their weights."""
    scale = weights.get(_ENCODER, 0.0)
    biases = scale * encoder.item_biases.detach().cpu().numpy()
    for name, values in signals.popularity.items():
        biases = biases + weights[name] * values
    flat, newest = _recency_columns()
    habit = weights.get(_TIMES_TAKEN, 0.0), weights.get(_DAYS_TAKEN, 0.0)
    return Blend(
        np.array([scale], np.float32),
        biases.astype(np.float32),
        signals.neighbours,
        signals.similarities,
        (weights[_NEIGHBOURS] * flat + weights[_NEWEST_NEIGHBOURS] * newest).astype(np.float32),
        np.array(habit, np.float32),
    )


def blend_accuracy(encoder: Encoder, blend: Blend, held_out: HeldOut) -> Accuracy:
    """Measure the blend's ranking of held-out items."""
    ranker = NextItemRanker(encoder, blend)
    offsets = torch.zeros(encoder.item_biases.numel())

    def score_users(users: Longs) -> Tensor:
        tokens = torch.from_numpy(scoring_tokens(held_out.histories, users, encoder.shape))
        scores, _ = ranker.score(tokens, offsets)
        added = habits(blend, held_out.histories, users)
        scores[torch.from_numpy(added.rows), torch.from_numpy(added.items)] += torch.from_numpy(added.scores)
        return scores

    return measure_accuracy(held_out, encoder.item_biases.numel(), score_users)


def _recency_columns() -> tuple[Floats, Floats]:
    """Return the two profiles over the newest events that the fit weighs: all alike, and 1 / rank."""
    return np.ones(_RECENT_EVENTS, np.float32), (1 / (1 + np.arange(_RECENT_EVENTS))).astype(np.float32)


class _Sources:
    """The values of every signal, for users whose later items are known."""

    def __init__(
        self, encoder: Encoder, signals: Signals, held_out: HeldOut, is_known: Bools, has_encoder: bool
    ) -> None:
        self._encoder, self._signals, self._held_out = encoder, signals, held_out
        self._is_known, self._has_encoder = is_known, has_encoder
        self._size = len(signals.neighbours)
        starts = np.arange(self._size + 1) * signals.neighbours.shape[1]
        self._similar = csr_matrix(
            (signals.similarities.ravel(), signals.neighbours.ravel(), starts), shape=(self._size, self._size)
        )
        self.names = [*signals.popularity, _NEIGHBOURS, _NEWEST_NEIGHBOURS]
        if has_encoder:
            self.names.insert(0, _ENCODER)
        if held_out.keep_seen:
            self.names += [_TIMES_TAKEN, _DAYS_TAKEN]

    def values(self, users: Longs) -> Iterator[tuple[int, Floats]]:
        """Yield each user, and the values of all signals for all items: (signals, vocabulary) float32."""
        n_users = max(1, _SCORES // self._size)
        for first in range(0, len(users), n_users):
            batch = users[first : first + n_users]
            of_encoder = [self._encoder_scores(batch)] if self._has_encoder else []
            of_users = self._neighbour_scores(batch)
            if self._held_out.keep_seen:
                of_users += self._habit_scores(batch)
            for row, user in enumerate(batch):
                own, of_user = ([scores[row] for scores in group] for group in (of_encoder, of_users))
                yield int(user), np.stack([*own, *self._signals.popularity.values(), *of_user])

    def candidates(self, user: int, values: Floats, generator: np.random.Generator) -> tuple[Floats, Bools, Floats]:
        """Choose the candidates of a user: the later items, the best items of each signal, and others at random.

        Returns their values (candidates, signals), whether they are relevant, and counts, as in Candidates.
        """
        may_get = self._is_known.copy()
        may_get[self._held_out.excluded(np.array([user])).items] = False
        allowed = np.flatnonzero(may_get)
        later = self._held_out.later.items[slice(*self._held_out.later.offsets[user : user + 2])]
        is_chosen = np.zeros(self._size, bool)
        is_chosen[later[may_get[later]]] = True
        for signal in values:
            best = np.argpartition(-signal[allowed], min(_BEST, len(allowed) - 1))[:_BEST]
            is_chosen[allowed[best]] = True
        chosen, rest = np.flatnonzero(is_chosen), np.flatnonzero(may_get & ~is_chosen)
        others = generator.choice(rest, min(_OTHERS, len(rest)), replace=False)
        items = np.concatenate([chosen, others])
        # The rest is counted through the items that were drawn: each of them for an equal share.
        counts = np.ones(len(items), np.float32)
        if len(others):
            counts[len(chosen) :] = len(rest) / len(others)
        return values[:, items].T.copy(), np.isin(items, later), counts

    def _encoder_scores(self, users: Longs) -> Floats:
        tokens = torch.from_numpy(scoring_tokens(self._held_out.histories, users, self._encoder.shape))
        with torch.inference_mode():
            scores: Floats = (
                self._encoder.score_last_place(tokens.to(self._encoder.item_biases.device)).float().cpu().numpy()
            )
        return scores

    def _neighbour_scores(self, users: Longs) -> list[Floats]:
        """Return the scores of neighbours by both profiles, (users, vocabulary), as the graph adds them."""
        histories = self._held_out.histories
        lengths = np.minimum(histories.lengths[users], min(_RECENT_EVENTS, visible_events(self._encoder.shape)))
        rows = np.repeat(np.arange(len(users)), lengths)
        ranks = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        items = histories.items[np.repeat(histories.offsets[users + 1] - 1, lengths) - ranks]
        outcome: list[Floats] = []
        for profile in _recency_columns():
            recent = csr_matrix((profile[ranks], (rows, items)), shape=(len(users), self._size))
            outcome.append((recent @ self._similar).toarray())
        return outcome

    def _habit_scores(self, users: Longs) -> list[Floats]:
        """Return the scores of habit by both columns, (users, vocabulary), as the graph adds them."""
        rows, items, columns = habit_columns(self._held_out.histories, users)
        scores = np.zeros((columns.shape[1], len(users), self._size), np.float32)
        scores[:, rows, items] = columns.T
        return list(scores)
