"""Limits of each user: the filter of seen items, and what --block-for-user, --candidates and --segments say.

The model's graph (training/ranking_graph.py) masks the excluded items; popular_lists.py drops them for cold users.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchrec.arrays import Bools, Longs
from batchrec.model.batching import NO_PAIRS, Histories, SeenPairs, seen_pairs
from batchrec.rules.compiled import CompiledRules


@dataclass(frozen=True)
class UserLimits:
    """Items that users may not get, seen or blocked for them, and the only ones that they may get: a row per user.

    seen: seen and disliked items, None without any. blocked, candidates: None without these rules. segments: (users,)
    int64, each user's row of CompiledRules.by_segment, None without one.
    """

    seen: Histories | None
    blocked: Histories | None = None
    candidates: Histories | None = None
    segments: Longs | None = None

    def excluded(self, users: Longs) -> SeenPairs:
        """List the items that some users may not get, seen or blocked for them; row r is for users[r]."""
        parts = [seen_pairs(part, users) for part in (self.seen, self.blocked) if part is not None]
        if len(parts) == 1:
            return parts[0]
        parts.append(NO_PAIRS)
        return SeenPairs(np.concatenate([p.rows for p in parts]), np.concatenate([p.items for p in parts]))

    def segments_of(self, users: Longs) -> Longs:
        """Return the row of CompiledRules.by_segment of some users, 0 without segments."""
        return np.zeros(len(users), np.int64) if self.segments is None else self.segments[users]


def limits_of(rules: CompiledRules, seen: Histories | None, user_ids: pa.Array) -> UserLimits:
    """Look up the rules of single users; seen: items that they may not get, as in UserLimits."""
    return UserLimits(
        seen,
        None if rules.blocked_for is None else rules.blocked_for.of(user_ids),
        None if rules.candidates is None else rules.candidates.of(user_ids),
        None if rules.by_segment is None else rules.by_segment.of(user_ids),
    )


def allowed_candidates(
    candidates: Histories, limits: UserLimits, users: Longs, excluded: SeenPairs, rules: CompiledRules
) -> SeenPairs:
    """List the candidates that some users may get; row r is for users[r]."""
    pairs, size = seen_pairs(candidates, users), len(rules.is_eligible)
    allowed = rules.may_get(limits.segments_of(users)[pairs.rows], pairs.items)
    allowed &= ~np.isin(pairs.rows * size + pairs.items, excluded.rows * size + excluded.items)
    return SeenPairs(pairs.rows[allowed], pairs.items[allowed])


def allowed_pins(rules: CompiledRules, segments: Longs, excluded: SeenPairs, candidates: SeenPairs | None) -> Bools:
    """Return which pins are allowed in which rows: (rows, pins) bool.

    segments: (rows,) int64, as UserLimits.segments_of. candidates: the allowed ones, None if any item is one.
    """
    column_of = np.full(len(rules.is_eligible), -1)
    column_of[rules.pins] = np.arange(len(rules.pins))
    allowed = np.full((len(segments), len(rules.pins)), candidates is None)
    if candidates is None:
        allowed &= rules.may_get(segments[:, None], rules.pins)
    for pairs, value in ((candidates or NO_PAIRS, True), (excluded, False)):
        columns = column_of[pairs.items]
        allowed[pairs.rows[columns >= 0], columns[columns >= 0]] = value
    return allowed
