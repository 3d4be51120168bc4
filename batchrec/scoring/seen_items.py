"""Items that users may not get because they have seen or disliked them, by --seen.

The graph gives them the score -inf (training/ranking_graph.py), the popular items of cold users leave them out
(scoring/popular_lists.py), and so do pins and --candidates (rules/user_limits.py). A gate looks for them in the
finished table (sql/nightly/recs_faults.sql).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from batchrec.arrays import Bools, Longs
from batchrec.model.batching import Histories, also_seen, history_digests
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import PAD
from batchrec.tables.sequences_table import filter_lists

# Odd factors, so that an item counts differently in each of the parts of a digest; that of also_seen is another.
_RELEASED, _DISLIKED = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_FIRST_OF_DAY = np.uint64(0xE7037ED1A0B428DB)


@dataclass(frozen=True)
class SeenItems:
    """Histories over a vocabulary, and the items of them, or others, that each user may not get.

    blocked: seen and disliked items; None if there are none for anybody. digests: (users,) int64, which change with the
    history, with other seen items, and with what is blocked of them.
    """

    histories: Histories
    blocked: Histories | None
    digests: Longs


def seen_items(
    users: pa.RecordBatch, vocabulary: Vocabulary, seen_from: float, *, with_days: bool = False
) -> SeenItems:
    """Look up what users of a sequences batch may not get; seen_from: as in ScoringConfig.

    with_days: whether the histories have days; then the digests change with them too. The columns also_seen, is_seen
    and disliked may be missing; timestamps are needed if seen_from is finite or with_days.
    """
    timestamps = users["timestamps"] if with_days else None
    histories, others = Histories.from_arrow(users["item_ids"], vocabulary, timestamps), also_seen(users, vocabulary)
    digests, blocked = history_digests(histories, others), None
    if histories.same_day is not None:
        first_of_day = np.where(histories.same_day, PAD, histories.items)
        digests = _with_part(digests, replace(histories, items=first_of_day), _FIRST_OF_DAY)
    if seen_from < math.inf:
        is_blocking = _blocking_events(users, seen_from)
        blocked = histories
        if is_blocking is not None:
            blocked = Histories.from_arrow(filter_lists(users["item_ids"], is_blocking), vocabulary)
            # Without events that no longer block, the digest is that of a night on which none could.
            released = Histories.from_arrow(filter_lists(users["item_ids"], ~is_blocking), vocabulary)
            digests = _with_part(digests, released, _RELEASED)
        blocked = blocked.followed_by(others)
    if "disliked" in users.schema.names:
        disliked = Histories.from_arrow(users["disliked"], vocabulary)
        digests = _with_part(digests, disliked, _DISLIKED)
        blocked = disliked if blocked is None else blocked.followed_by(disliked)
    return SeenItems(histories, blocked, digests)


def _blocking_events(users: pa.RecordBatch, seen_from: float) -> Bools | None:
    """Return which events of the histories make their item one that the user may not get: (events,); None for all."""
    has_flags = "is_seen" in users.schema.names
    if seen_from == -math.inf and not has_flags:
        return None
    is_blocking: Bools = np.ones(len(users["item_ids"].flatten()), bool)
    if has_flags:
        is_blocking &= users["is_seen"].flatten().to_numpy(zero_copy_only=False)
    if seen_from > -math.inf:
        is_blocking &= users["timestamps"].flatten().to_numpy() >= seen_from
    return is_blocking


def _with_part(digests: Longs, items: Histories, factor: np.uint64) -> Longs:
    """Add the items of another part to digests; a user without such items keeps theirs."""
    return (digests.view(np.uint64) + history_digests(items).view(np.uint64) * factor).view(np.int64)
