"""Ranks by the model, each row among what its segment may get."""

import numpy as np

from batchrec.arrays import Floats, Ints, Longs
from batchrec.model.batching import SeenPairs
from batchrec.model.ranker import Ranker, Ranking
from batchrec.rules.compiled import CompiledRules

# Lengths of rankings are powers of this, so that rows of nearly the same share are ranked together.
_STEP = 1.4
_DEEPER = 4


class SegmentRanker:
    """Takes the best items of rows out of longer rankings, without a pair of user and item for what is kept from them.

    `rank` may be called from several threads at once.
    """

    def __init__(self, ranker: Ranker, rules: CompiledRules, n_items: int) -> None:
        """Count what each segment may get; n_items: how many the model knows; the rules: with some by segment."""
        assert rules.by_segment is not None  # noqa: S101 - else a Ranker does it
        self._ranker, self._rules, self._n_items = ranker, rules, n_items
        self._shares = rules.by_segment.is_eligible.sum(axis=1) / max(1, int(rules.is_eligible.sum()))

    def rank(self, tokens: Ints, seen: SeenPairs, depth: int, segments: Longs) -> tuple[Ranking, Floats]:
        """Rank the best `depth` items for each row, as Ranker.rank_and_encode does.

        segments: (rows,) int64, rows of by_segment. Returns the ranking, and the states (rows, hidden_size).
        """
        shape = len(tokens), depth
        found = Ranking(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32))
        states: Floats | None = None
        wider = self._widths(depth)[segments]
        waiting = np.ones(len(tokens), bool)
        while waiting.any():
            width = int(wider[waiting].min())
            rows = np.flatnonzero(waiting & (wider == width))
            ranking, encoded = self._ranker.rank_and_encode(tokens[rows], _of_rows(seen, rows, len(tokens)), width)
            states = np.zeros((len(tokens), encoded.shape[1]), np.float32) if states is None else states
            states[rows] = encoded
            is_whole = ~ranking.is_item[:, -1] | (width >= self._n_items)
            is_open = ranking.is_item & self._rules.may_get(segments[rows][:, None], ranking.items)
            order = np.argsort(~is_open, axis=1, kind="stable")[:, :depth]
            found.scores[rows, : order.shape[1]] = np.take_along_axis(
                np.where(is_open, ranking.scores, -np.inf), order, axis=1
            )
            found.items[rows, : order.shape[1]] = np.take_along_axis(ranking.items, order, axis=1)
            is_done = is_whole | (is_open.sum(axis=1) >= depth)
            waiting[rows[is_done]] = False
            wider[rows] = min(width * _DEEPER, self._n_items)
        assert states is not None  # noqa: S101 - a batch has rows
        return found, states

    def _widths(self, depth: int) -> Longs:
        """Say how long a ranking holds `depth` items of each segment: (segments,) int64.

        As many as by its share, and three standard deviations more, if it is drawn evenly from all.
        """
        needed = (depth + 3 * np.sqrt(depth)) / np.maximum(self._shares, 1 / self._n_items)
        widths = np.ceil(_STEP ** np.ceil(np.log(needed) / np.log(_STEP)))
        widths[self._shares == 1] = depth
        bounded: Longs = np.minimum(widths, self._n_items).astype(np.int64)
        return bounded


def _of_rows(seen: SeenPairs, rows: Longs, n_rows: int) -> SeenPairs:
    """Keep the pairs of some rows, numbered anew."""
    if len(rows) == n_rows:
        return seen
    numbers = np.full(n_rows, -1)
    numbers[rows] = np.arange(len(rows))
    is_kept = numbers[seen.rows] >= 0
    return SeenPairs(numbers[seen.rows[is_kept]], seen.items[is_kept])
