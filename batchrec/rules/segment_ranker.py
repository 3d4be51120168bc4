"""Rankings by the model of the items that each row's segment may get."""

from dataclasses import replace

import numpy as np

from batchrec.arrays import Floats, Ints, Longs
from batchrec.model.batching import SeenPairs
from batchrec.model.blend import ScoredPairs
from batchrec.model.ranker import Ranker, Ranking
from batchrec.rules.compiled import CompiledRules, SegmentRules

# Lengths of rankings are powers of this number, so that rows of similar shares are ranked together.
_STEP = 1.4
_DEEPER = 4


class SegmentRanker:
    """Takes the best allowed items of each row from a longer ranking: no pair of a user and a forbidden item is made.

    `rank` may be called by several threads at the same time.
    """

    def __init__(self, ranker: Ranker, rules: CompiledRules, by_segment: SegmentRules, n_items: int) -> None:
        """Count the items that each segment may get; by_segment: those of the rules; n_items: items of the model."""
        self._ranker, self._rules, self._n_items = ranker, rules, n_items
        self._shares = by_segment.is_eligible.sum(axis=1) / max(1, int(rules.is_eligible.sum()))

    def rank(  # noqa: PLR0913, PLR0917 - those of Ranker.rank_and_score, and the segments
        self, tokens: Ints, seen: SeenPairs, depth: int, segments: Longs, asked: SeenPairs, habits: ScoredPairs
    ) -> tuple[Ranking, Floats]:
        """Rank the best `depth` items for each row, as Ranker.rank_and_score does; asked: by row, ascending.

        segments: (rows,) int64, rows of by_segment. Returns the ranking and the scores of the asked pairs (pairs,).
        """
        shape = len(tokens), depth
        best = Ranking(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32))
        scores = np.zeros(len(asked.rows), np.float32)
        states: Floats | None = None
        wider = self._widths(depth)[segments]
        waiting = np.ones(len(tokens), bool)
        while waiting.any():
            width = int(wider[waiting].min())
            rows = np.flatnonzero(waiting & (wider == width))
            is_asked = np.isin(asked.rows, rows)
            ranking, scores[is_asked] = self._ranker.rank_and_score(
                tokens[rows],
                seen.of_rows(rows, len(tokens)),
                width,
                asked.of_rows(rows, len(tokens)),
                habits.of_rows(rows, len(tokens)),
            )
            if ranking.states is not None:
                states = np.zeros((len(tokens), ranking.states.shape[1]), np.float32) if states is None else states
                states[rows] = ranking.states
            is_whole = ~ranking.is_item[:, -1] | (width >= self._n_items)
            is_open = ranking.is_item & self._rules.may_get(segments[rows][:, None], ranking.items)
            order = np.argsort(~is_open, axis=1, kind="stable")[:, :depth]
            best.scores[rows, : order.shape[1]] = np.take_along_axis(
                np.where(is_open, ranking.scores, -np.inf), order, axis=1
            )
            best.items[rows, : order.shape[1]] = np.take_along_axis(ranking.items, order, axis=1)
            is_done = is_whole | (is_open.sum(axis=1) >= depth)
            waiting[rows[is_done]] = False
            wider[rows] = min(width * _DEEPER, self._n_items)
        return replace(best, states=states), scores

    def _widths(self, depth: int) -> Longs:
        """Return how long a ranking must be to hold `depth` items of each segment: (segments,) int64.

        If a segment's items are drawn evenly from all: the expected length, and three standard deviations more.
        """
        needed = (depth + 3 * np.sqrt(depth)) / np.maximum(self._shares, 1 / self._n_items)
        widths = np.ceil(_STEP ** np.ceil(np.log(needed) / np.log(_STEP)))
        widths[self._shares == 1] = depth
        bounded: Longs = np.minimum(widths, self._n_items).astype(np.int64)
        return bounded
