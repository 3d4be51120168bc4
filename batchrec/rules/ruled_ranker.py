"""The model's lists under rules that the graph does not know: pins, caps of categories, candidates, unlike items."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.model.batching import Histories, SeenPairs, seen_pairs
from batchrec.model.directory import Model
from batchrec.model.ranker import Ranker, Ranking
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.pools import Pool, RecLists, Selection
from batchrec.rules.segment_ranker import SegmentRanker
from batchrec.rules.selection import deepen
from batchrec.tables.schemas import BY_MODEL, FIRST_ITEM

# Scores of pairs of a user and an item that are made at a time.
_PAIRS = 1 << 16
# Items of a pool for each one of a list.
_POOL, _LEAST_POOL = 5, 100
_NO_PAIRS = SeenPairs(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class Limits:
    """What users may not have, seen or blocked for them, and may have alone: a row a user, None where nothing is.

    segments: (users,) int64, the row of by_segment that holds for each user, None where no segment matters.
    """

    seen: Histories | None
    blocked: Histories | None = None
    candidates: Histories | None = None
    segments: Longs | None = None

    def excluded(self, users: Longs) -> SeenPairs:
        """List what some users may not have, row r for users[r]."""
        parts = [seen_pairs(part, users) for part in (self.seen, self.blocked) if part is not None]
        if len(parts) == 1:
            return parts[0]
        parts.append(_NO_PAIRS)
        return SeenPairs(np.concatenate([p.rows for p in parts]), np.concatenate([p.items for p in parts]))

    def segments_of(self, users: Longs) -> Longs:
        """Return the row of by_segment that holds for each user, 0 where no segment matters."""
        return np.zeros(len(users), np.int64) if self.segments is None else self.segments[users]


def limits_of(rules: CompiledRules, histories: Histories | None, user_ids: pa.Array) -> Limits:
    """Look up what the rules say of single users; histories: of the users, None where what was seen may come again."""
    return Limits(
        histories,
        None if rules.blocked_for is None else rules.blocked_for.of(user_ids),
        None if rules.candidates is None else rules.candidates.of(user_ids),
        None if rules.by_segment is None else rules.by_segment.of(user_ids),
    )


def allowed_candidates(limits: Limits, users: Longs, excluded: SeenPairs, rules: CompiledRules) -> SeenPairs:
    """List the candidates of some users that they may have, row r for users[r]; there are candidates in the limits."""
    assert limits.candidates is not None  # noqa: S101 - else any item is one
    pairs, size = seen_pairs(limits.candidates, users), len(rules.is_eligible)
    allowed = rules.may_get(limits.segments_of(users)[pairs.rows], pairs.items)
    allowed &= ~np.isin(pairs.rows * size + pairs.items, excluded.rows * size + excluded.items)
    return SeenPairs(pairs.rows[allowed], pairs.items[allowed])


def allowed_pins(rules: CompiledRules, segments: Longs, excluded: SeenPairs, candidates: SeenPairs | None) -> Bools:
    """Tell which pins may stand in which rows: (rows, pins) bool; segments: of each row, as Limits.segments_of."""
    column_of = np.full(len(rules.is_eligible), -1)
    column_of[rules.pins] = np.arange(len(rules.pins))
    allowed = np.full((len(segments), len(rules.pins)), candidates is None)
    if candidates is None:
        allowed &= rules.may_get(segments[:, None], rules.pins)
    for pairs, value in ((candidates or _NO_PAIRS, True), (excluded, False)):
        columns = column_of[pairs.items]
        allowed[pairs.rows[columns >= 0], columns[columns >= 0]] = value
    return allowed


def as_rows(pairs: SeenPairs, scores: NDArray[np.floating[Any]], n_rows: int) -> Ranking:
    """Lay pairs out as rows of items, the highest score first; items of one score in the order of their indexes."""
    order = np.lexsort((pairs.items, -scores, pairs.rows))
    counts = np.bincount(pairs.rows, minlength=n_rows)
    columns = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (n_rows, max(1, int(counts.max(initial=0))))
    ranking = Ranking(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32))
    ranking.scores[pairs.rows[order], columns] = scores[order]
    ranking.items[pairs.rows[order], columns] = pairs.items[order]
    return ranking


class RuledRanker:
    """Ranks by the model and the rules; `rank` may be called from several threads at once."""

    def __init__(self, ranker: Ranker, model: Model, rules: CompiledRules, top_k: int) -> None:
        """Read the item embeddings, where the rules need them."""
        self._ranker, self._rules = ranker, rules
        self._size = model.vocabulary.size
        weights = load(model.weights)
        self._embeddings: Floats = weights["item_embeddings.weight"]
        self._biases: Floats = weights["item_biases"] + rules.item_offsets[: self._size]
        self._selection = selection_of(rules, top_k, self._embeddings)
        n_items = self._size - FIRST_ITEM
        least = top_k
        if rules.diversity:
            least = max(_LEAST_POOL, _POOL * top_k)
        elif rules.categories is not None:
            least = _POOL * top_k
        self._depths = min(least, n_items), n_items
        self._by_segment = SegmentRanker(ranker, rules, n_items) if rules.by_segment is not None else None

    def rank(self, tokens: Ints, users: Longs, limits: Limits) -> RecLists:
        """Give the list of each row. tokens: as for Ranker.rank; users: which row of the limits is whose."""
        if limits.candidates is not None:
            return self._rank_candidates(tokens, users, limits)

        def pool_of(rows: Longs, depth: int) -> Pool:
            excluded = limits.excluded(users[rows])
            ranking, pin_scores = self._best(tokens[rows], excluded, depth, limits.segments_of(users[rows]))
            return _by_model(ranking, pin_scores, is_whole=~ranking.is_item[:, -1])

        return deepen(pool_of, len(tokens), self._depths, self._selection)

    def _best(self, tokens: Ints, excluded: SeenPairs, depth: int, segments: Longs) -> tuple[Ranking, Floats]:
        """Give the best `depth` items of each row, and the scores of the pins."""
        known = excluded.items < self._size
        seen = SeenPairs(excluded.rows[known], excluded.items[known])
        if self._by_segment is not None:
            ranking, states = self._by_segment.rank(tokens, seen, depth, segments)
        elif not len(self._rules.pins):
            return self._ranker.rank(tokens, seen, depth), np.empty((len(tokens), 0), np.float32)
        else:
            ranking, states = self._ranker.rank_and_encode(tokens, seen, depth)
        return ranking, self._pin_scores(states, allowed_pins(self._rules, segments, excluded, None))

    def _rank_candidates(self, tokens: Ints, users: Longs, limits: Limits) -> RecLists:
        # The states alone count: of the catalogue one item is ranked.
        _, states = self._ranker.rank_and_encode(tokens, _NO_PAIRS, 1)
        excluded = limits.excluded(users)
        pairs = allowed_candidates(limits, users, excluded, self._rules)
        pin_allowed = allowed_pins(self._rules, limits.segments_of(users), excluded, pairs)
        pin_scores = self._pin_scores(states, pin_allowed)
        known = pairs.items < self._size
        pairs = SeenPairs(pairs.rows[known], pairs.items[known])
        ranking = as_rows(pairs, self._scores(states, pairs), len(tokens))

        def pool_of(rows: Longs, depth: int) -> Pool:
            best = Ranking(ranking.scores[rows, :depth], ranking.items[rows, :depth])
            return _by_model(best, pin_scores[rows], is_whole=~ranking.is_item[rows, depth - 1])

        depths = min(self._depths[0], ranking.items.shape[1]), ranking.items.shape[1]
        return deepen(pool_of, len(tokens), depths, self._selection)

    def _scores(self, states: Floats, pairs: SeenPairs) -> Floats:
        """Score single items for single rows: (pairs,) float32."""
        scores = self._biases[pairs.items]
        for start in range(0, len(scores), _PAIRS):
            part = slice(start, start + _PAIRS)
            scores[part] += np.einsum("ij,ij->i", states[pairs.rows[part]], self._embeddings[pairs.items[part]])
        return scores

    def _pin_scores(self, states: Floats, pin_allowed: Bools) -> Floats:
        """Score the pins, 0 for one that the model does not know: (rows, pins), -inf for one that may not stand."""
        pins = self._rules.pins
        scores = np.zeros((len(states), len(pins)), np.float32)
        known = pins < self._size
        scores[:, known] = states @ self._embeddings[pins[known]].T + self._biases[pins[known]]
        scores[~pin_allowed] = -np.inf
        return scores


def _by_model(ranking: Ranking, pin_scores: Floats, is_whole: Bools) -> Pool:
    sources = np.full(ranking.items.shape, BY_MODEL, np.int8)
    return Pool(ranking.scores, ranking.items, sources, pin_scores, is_whole)


def selection_of(rules: CompiledRules, top_k: int, embeddings: Floats | None = None) -> Selection:
    """Say how lists are chosen by the rules; embeddings: (vocabulary, hidden_size), of items that may be unlike."""
    directions = None
    if rules.diversity and embeddings is not None:
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        directions = np.zeros((len(rules.is_eligible), embeddings.shape[1]), np.float32)
        directions[: len(embeddings)] = embeddings / np.where(lengths > 0, lengths, 1)
    return Selection(
        top_k, rules.pins, rules.places, rules.categories, rules.max_per_category, rules.diversity, directions
    )
