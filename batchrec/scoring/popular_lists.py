"""Lists of popular items under the rules: first those of the user's segment, then of all users, then of all time."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchrec.arrays import Bools, Codes, Doubles, Floats, Ints, Longs
from batchrec.model.batching import SeenPairs
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.pools import Pool, RecLists, Selection
from batchrec.rules.ruled_ranker import as_rows, selection_of
from batchrec.rules.selection import deepen
from batchrec.rules.user_limits import UserLimits, allowed_candidates, allowed_pins, limits_of
from batchrec.scoring.seen_items import seen_items
from batchrec.tables.schemas import PAD

# Size of the first pool, as a multiple of the list's length.
_POOL = 5


@dataclass(frozen=True)
class Order:
    """Eligible items, most popular first: items (n,) int32, scores (n,) float32 and sources (n,) int8."""

    items: Ints
    scores: Floats
    sources: Codes

    @classmethod
    def of(cls, items: Ints, popularity: Longs | Doubles, source: int, rules: CompiledRules) -> "Order":
        """Order items by their popularity times their boost; items of equal score in the order of their indexes."""
        boosted = (popularity * rules.factors[items]).astype(np.float32)
        order = np.lexsort((items, -boosted))
        order = order[rules.is_eligible[items[order]]]
        return cls(items[order], boosted[order], np.full(len(order), source, np.int8))

    def filter(self, is_kept: Bools) -> "Order":
        """Keep some items: is_kept (n,) bool."""
        return Order(self.items[is_kept], self.scores[is_kept], self.sources[is_kept])

    def then(self, other: "Order") -> "Order":
        """Append the items of another order that are not in this one."""
        new = ~np.isin(other.items, self.items)
        return Order(
            np.append(self.items, other.items[new]),
            np.append(self.scores, other.scores[new]),
            np.append(self.sources, other.sources[new]),
        )


@dataclass(frozen=True)
class PopularLists:
    """Orders over the model's vocabulary extended by new items; by_segment: a segment's number -> its order."""

    vocabulary: Vocabulary
    rules: CompiledRules
    everybody: Order
    by_segment: dict[int, Order]

    def lists(self, users: pa.RecordBatch, segments: Longs, top_k: int, seen_from: float) -> RecLists:
        """Return the lists of users; users: a sequences batch; segments: (users,), -1 for none."""
        limits = self.limits(users, seen_from)
        selection = selection_of(self.rules, top_k)
        lists = RecLists.empty(len(users), top_k)
        for segment in np.unique(segments).tolist():
            rows = np.flatnonzero(segments == segment)
            own = self.by_segment.get(segment)
            order = self.everybody if own is None else own.then(self.everybody)
            if limits.segments is not None:
                # All rows are of one segment, so --allow and --block let all of them get the same items.
                order = order.filter(self.rules.may_get(limits.segments[rows[0]], order.items))
            lists.put(rows, _Chooser(order, self.rules, limits, selection).choose(rows))
        return lists

    def limits(self, users: pa.RecordBatch, seen_from: float) -> UserLimits:
        """Return what each user of a sequences batch may not get: seen and disliked items, and by the rules.

        seen_from: as in ScoringConfig.
        """
        blocked = seen_items(users, self.vocabulary, seen_from).blocked
        return limits_of(self.rules, blocked, users["user_id"])


class _Chooser:
    """Chooses lists from one order."""

    def __init__(self, order: Order, rules: CompiledRules, limits: UserLimits, selection: Selection) -> None:
        self._rules, self._limits, self._selection = rules, limits, selection
        self._n_items = len(order.items)
        self._place_of = np.full(len(rules.is_eligible), -1)
        self._place_of[order.items] = np.arange(self._n_items)
        # Place -1, the last one, holds no item.
        self._items = np.append(order.items, np.int32(PAD))
        self._scores = np.append(order.scores, np.float32(-np.inf))
        self._sources = np.append(order.sources, np.int8(0))
        pin_scores = self._scores[self._place_of[selection.pins]]
        # A pin without events is pinned all the same.
        self._pin_scores = np.where(pin_scores == -np.inf, np.float32(0), pin_scores)

    def choose(self, users: Longs) -> RecLists:
        """Return the lists of some rows of the limits."""

        def pool_of(rows: Longs, depth: int) -> Pool:
            return self._pool(users[rows], depth)

        return deepen(
            pool_of, len(users), (min(_POOL * self._selection.top_k, self._n_items), self._n_items), self._selection
        )

    def _pool(self, users: Longs, depth: int) -> Pool:
        excluded, candidates = self._limits.excluded(users), None
        if self._limits.candidates is not None:
            candidates = allowed_candidates(self._limits.candidates, self._limits, users, excluded, self._rules)
            places = self._candidate_places(candidates, len(users))
        else:
            places = np.tile(np.arange(depth), (len(users), 1))
            excluded_places = self._place_of[excluded.items]
            is_near = (excluded_places >= 0) & (excluded_places < depth)
            places[excluded.rows[is_near], excluded_places[is_near]] = -1
        pin_allowed = allowed_pins(self._rules, self._limits.segments_of(users), excluded, candidates)
        return Pool(
            self._scores[places],
            self._items[places],
            self._sources[places],
            pin_scores=np.where(pin_allowed, self._pin_scores, np.float32(-np.inf)),
            is_whole=np.full(len(users), candidates is not None),
        )

    def _candidate_places(self, candidates: SeenPairs, n_rows: int) -> Longs:
        places = self._place_of[candidates.items]
        pairs = SeenPairs(candidates.rows[places >= 0], candidates.items[places >= 0])
        # PAD, after a row's last item, has place -1.
        return self._place_of[as_rows(pairs, -places[places >= 0].astype(np.float64), n_rows).items]
