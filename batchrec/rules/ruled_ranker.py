"""Model lists under the rules that the graph cannot apply: pins, category caps, candidates, diversity."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.model.batching import Histories, SeenPairs
from batchrec.model.directory import Model
from batchrec.model.ranker import Ranker, Ranking
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.pools import CategoryCap, Pool, RecLists, Selection, Unlikeness
from batchrec.rules.seen_and_blocked import NO_PAIRS, UserLimits, allowed_candidates, allowed_pins
from batchrec.rules.segment_ranker import SegmentRanker
from batchrec.rules.selection import deepen
from batchrec.tables.schemas import BY_MODEL, FIRST_ITEM

# Pairs of a user and an item that are scored at a time.
_PAIRS = 1 << 16
# Items of a pool per item of a list, and their minimum number.
_POOL, _MIN_POOL = 5, 100


def as_rows(pairs: SeenPairs, scores: NDArray[np.floating[Any]], n_rows: int) -> Ranking:
    """Lay pairs out as rows of items, the highest score first; items of equal score in the order of their indexes."""
    order = np.lexsort((pairs.items, -scores, pairs.rows))
    counts = np.bincount(pairs.rows, minlength=n_rows)
    columns = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (n_rows, max(1, int(counts.max(initial=0))))
    ranking = Ranking(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32))
    ranking.scores[pairs.rows[order], columns] = scores[order]
    ranking.items[pairs.rows[order], columns] = pairs.items[order]
    return ranking


class RuledRanker:
    """Ranks by the model and the rules; `rank` may be called by several threads at the same time."""

    def __init__(self, ranker: Ranker, model: Model, rules: CompiledRules, top_k: int) -> None:
        """Read the item embeddings from the model's weights."""
        self._ranker, self._rules = ranker, rules
        self._size = model.vocabulary.size
        weights = load(model.weights)
        self._embeddings: Floats = weights["item_embeddings.weight"]
        self._biases: Floats = weights["item_biases"] + rules.item_offsets[: self._size]
        self._selection = selection_of(rules, top_k, self._embeddings)
        n_items = self._size - FIRST_ITEM
        depth = top_k
        if rules.diversity:
            depth = max(_MIN_POOL, _POOL * top_k)
        elif rules.categories is not None:
            depth = _POOL * top_k
        self._depths = min(depth, n_items), n_items
        self._by_segment: SegmentRanker | None = None
        if rules.by_segment is not None:
            hidden_size = self._embeddings.shape[1]
            self._by_segment = SegmentRanker(ranker, rules, rules.by_segment, n_items, hidden_size)

    def rank(self, tokens: Ints, users: Longs, limits: UserLimits) -> RecLists:
        """Return the list of each row. tokens: as for Ranker.rank; users: each row's row of the limits."""
        if limits.candidates is not None:
            return self._rank_candidates(limits.candidates, tokens, users, limits)

        def pool_of(rows: Longs, depth: int) -> Pool:
            excluded = limits.excluded(users[rows])
            ranking, pin_scores = self._best(tokens[rows], excluded, depth, limits.segments_of(users[rows]))
            return _by_model(ranking, pin_scores, is_whole=~ranking.is_item[:, -1])

        return deepen(pool_of, len(tokens), self._depths, self._selection)

    def _best(self, tokens: Ints, excluded: SeenPairs, depth: int, segments: Longs) -> tuple[Ranking, Floats]:
        """Return the best `depth` items of each row, and the scores of the pins."""
        known = excluded.items < self._size
        seen = SeenPairs(excluded.rows[known], excluded.items[known])
        if self._by_segment is not None:
            ranking, states = self._by_segment.rank(tokens, seen, depth, segments)
        elif not len(self._rules.pins):
            return self._ranker.rank(tokens, seen, depth), np.empty((len(tokens), 0), np.float32)
        else:
            ranking, states = self._ranker.rank_and_encode(tokens, seen, depth)
        return ranking, self._pin_scores(states, allowed_pins(self._rules, segments, excluded, None))

    def _rank_candidates(self, candidates: Histories, tokens: Ints, users: Longs, limits: UserLimits) -> RecLists:
        # Only the states are needed: of the catalogue one item is ranked.
        _, states = self._ranker.rank_and_encode(tokens, NO_PAIRS, 1)
        excluded = limits.excluded(users)
        pairs = allowed_candidates(candidates, limits, users, excluded, self._rules)
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
        """Score pairs of a row and an item: (pairs,) float32."""
        scores = self._biases[pairs.items]
        for start in range(0, len(scores), _PAIRS):
            part = slice(start, start + _PAIRS)
            scores[part] += np.einsum("ij,ij->i", states[pairs.rows[part]], self._embeddings[pairs.items[part]])
        return scores

    def _pin_scores(self, states: Floats, pin_allowed: Bools) -> Floats:
        """Score the pins: (rows, pins), 0 for a pin that the model does not know, -inf for one that is not allowed."""
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
    """Return how lists are selected by the rules; embeddings: (vocabulary, hidden_size), None without --diversity."""
    cap = None if rules.categories is None else CategoryCap(rules.categories, rules.max_per_category)
    unlikeness = None
    if rules.diversity and embeddings is not None:
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        directions = np.zeros((len(rules.is_eligible), embeddings.shape[1]), np.float32)
        directions[: len(embeddings)] = embeddings / np.where(lengths > 0, lengths, 1)
        unlikeness = Unlikeness(rules.diversity, directions)
    return Selection(top_k, rules.pins, rules.places, cap, unlikeness)
