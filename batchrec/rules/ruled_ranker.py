"""Model lists under the rules that the graph cannot apply: pins, category caps, candidates, diversity."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.model.batching import Histories, SeenPairs
from batchrec.model.blend import NO_HABITS, ScoredPairs
from batchrec.model.directory import Model
from batchrec.model.ranker import Ranker, Ranking
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.pools import CategoryCap, Pool, RecLists, Selection, Unlikeness
from batchrec.rules.segment_ranker import SegmentRanker
from batchrec.rules.selection import deepen
from batchrec.rules.user_limits import UserLimits, allowed_candidates, allowed_pins
from batchrec.tables.schemas import BY_MODEL, FIRST_ITEM

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
        """Read the model's item embeddings if the rules need them, and raise ModelError if it has none."""
        self._ranker, self._rules = ranker, rules
        self._size = model.vocabulary.size
        embeddings = model.encoder_weights("--diversity")["item_embeddings.weight"] if rules.diversity else None
        self._selection = selection_of(rules, top_k, embeddings)
        n_items = self._size - FIRST_ITEM
        depth = top_k
        if rules.diversity:
            depth = max(_MIN_POOL, _POOL * top_k)
        elif rules.categories is not None:
            depth = _POOL * top_k
        self._depths = min(depth, n_items), n_items
        self._by_segment: SegmentRanker | None = None
        if rules.by_segment is not None:
            self._by_segment = SegmentRanker(ranker, rules, rules.by_segment, n_items)

    def rank(self, tokens: Ints, users: Longs, limits: UserLimits, habits: ScoredPairs = NO_HABITS) -> RecLists:
        """Return the list of each row, with states if the Ranker keeps them.

        tokens, habits: as for Ranker.rank; users: each row's row of the limits.
        """
        if limits.candidates is not None:
            return self._rank_candidates(limits.candidates, tokens, users, limits, habits)

        # The first pools are of all rows.
        states: list[Floats | None] = []

        def pool_of(rows: Longs, depth: int) -> Pool:
            excluded, segments = limits.excluded(users[rows]), limits.segments_of(users[rows])
            ranking, pin_scores = self._best(tokens[rows], excluded, depth, segments, habits.of_rows(rows, len(tokens)))
            pin_scores[~allowed_pins(self._rules, segments, excluded, None)] = -np.inf
            states.append(ranking.states)
            return _by_model(ranking, pin_scores, is_whole=~ranking.is_item[:, -1])

        lists = deepen(pool_of, len(tokens), self._depths, self._selection)
        return replace(lists, states=states[0])

    def _best(
        self, tokens: Ints, excluded: SeenPairs, depth: int, segments: Longs, habits: ScoredPairs
    ) -> tuple[Ranking, Floats]:
        """Return the best `depth` items of each row, and the scores of the pins, 0 for one the model does not know."""
        seen, pins = self._known(excluded), self._pins_of(len(tokens))
        if self._by_segment is None:
            ranking, scores = self._ranker.rank_and_score(tokens, seen, depth, pins, habits)
        else:
            ranking, scores = self._by_segment.rank(tokens, seen, depth, segments, pins, habits)
        return ranking, self._lay_pins_out(scores, len(tokens))

    def _rank_candidates(
        self, candidates: Histories, tokens: Ints, users: Longs, limits: UserLimits, habits: ScoredPairs
    ) -> RecLists:
        excluded = limits.excluded(users)
        allowed = allowed_candidates(candidates, limits, users, excluded, self._rules)
        pairs, pins = self._known(allowed), self._pins_of(len(tokens))
        asked = SeenPairs(np.concatenate([pairs.rows, pins.rows]), np.concatenate([pairs.items, pins.items]))
        scores, states = self._ranker.score(tokens, asked, habits)
        pin_scores = self._lay_pins_out(scores[len(pairs.rows) :], len(tokens))
        pin_scores[~allowed_pins(self._rules, limits.segments_of(users), excluded, allowed)] = -np.inf
        ranking = as_rows(pairs, scores[: len(pairs.rows)], len(tokens))

        def pool_of(rows: Longs, depth: int) -> Pool:
            best = Ranking(ranking.scores[rows, :depth], ranking.items[rows, :depth])
            return _by_model(best, pin_scores[rows], is_whole=~ranking.is_item[rows, depth - 1])

        depths = min(self._depths[0], ranking.items.shape[1]), ranking.items.shape[1]
        return replace(deepen(pool_of, len(tokens), depths, self._selection), states=states)

    def _known(self, pairs: SeenPairs) -> SeenPairs:
        """Keep the pairs of items that the model knows."""
        is_known = pairs.items < self._size
        return SeenPairs(pairs.rows[is_known], pairs.items[is_known])

    def _pins_of(self, n_rows: int) -> SeenPairs:
        """List the pins that the model knows, for every row."""
        pins = self._rules.pins[self._rules.pins < self._size].astype(np.int64)
        return SeenPairs(np.repeat(np.arange(n_rows), len(pins)), np.tile(pins, n_rows))

    def _lay_pins_out(self, scores: Floats, n_rows: int) -> Floats:
        """Lay the scores of `_pins_of` out as (rows, pins), 0 for a pin that the model does not know."""
        pins = self._rules.pins
        laid_out = np.zeros((n_rows, len(pins)), np.float32)
        laid_out[:, pins < self._size] = scores.reshape(n_rows, -1)
        return laid_out


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
