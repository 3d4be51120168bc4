"""The rules of a night over the indexes of a vocabulary: which items which users may get, and at which places."""

from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Bools, Doubles, Floats, Ints, Longs
from batchrec.model.batching import Histories
from batchrec.rules.segments import Segments
from batchrec.tables.ids import without_blanks
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.tables.sorted_ids import SortedIds


@dataclass(frozen=True)
class ItemsByUser:
    """Items of users by index: user_ids (users,), a user once; items: a row per user, and an empty one at the end."""

    user_ids: pa.Array
    items: Histories

    @cached_property
    def _sorted(self) -> SortedIds:
        return SortedIds(self.user_ids)

    def of(self, user_ids: pa.Array) -> Histories:
        """Return the items of each user, none for a user without items."""
        places = self._sorted.places(without_blanks(user_ids))
        return self.items.take(np.where(places < 0, len(self.user_ids), places))


@dataclass(frozen=True)
class SegmentRules:
    """Which items users of each segment may get, if rows of --allow or --block name segments.

    segments: which user is in which segment. numbers: (n,) int64, the segments that the lists name, ascending.
    is_allowed, is_eligible: (n + 1, size) bool, the last row for all other users.
    """

    segments: Segments
    numbers: Longs
    is_allowed: Bools
    is_eligible: Bools

    def of(self, user_ids: pa.Array) -> Longs:
        """Return the row of is_eligible of each user: (users,) int64."""
        numbers = self.segments.of(user_ids)
        rows = np.searchsorted(self.numbers, numbers)
        is_named = np.append(self.numbers, -1)[rows] == numbers
        return np.where(is_named & (numbers >= 0), rows, len(self.numbers))

    @cached_property
    def digests(self) -> Longs:
        """Return a digest of the items that users of each row may get: (n + 1,) int64."""
        digests = [sha256(np.packbits(row).tobytes()).digest()[:8] for row in self.is_eligible]
        return np.frombuffer(b"".join(digests), np.int64)


@dataclass(frozen=True)
class CompiledRules:
    """The rules over the indexes of a vocabulary.

    is_allowed, is_blocked: (size,) bool; with by_segment: allowed for at least one user, blocked for everyone.
    factors: (size,) float64, by which an item's odds are multiplied.
    pins: (pins,) int32, items that may be pinned tonight; places: (pins,) int64, where in the list, from 0, ascending.
    categories: (size,) int32, -1 without a category; None if the number of items of a category is not limited.
    by_segment: None if users of all segments may get the same items.
    """

    is_allowed: Bools
    is_blocked: Bools
    factors: Doubles
    pins: Ints
    places: Longs
    categories: Ints | None
    max_per_category: int
    diversity: float
    blocked_for: ItemsByUser | None
    candidates: ItemsByUser | None
    by_segment: SegmentRules | None = None

    @classmethod
    def without_rules(cls, size: int) -> "CompiledRules":
        """Return the rules by which every user may get every item of a vocabulary."""
        return cls(
            is_allowed=np.ones(size, bool),
            is_blocked=np.zeros(size, bool),
            factors=np.ones(size),
            pins=np.empty(0, np.int32),
            places=np.empty(0, np.int64),
            categories=None,
            max_per_category=0,
            diversity=0.0,
            blocked_for=None,
            candidates=None,
        )

    @cached_property
    def is_eligible(self) -> Bools:
        """Whether any user may get an item: (size,) bool."""
        is_eligible: Bools = self.is_allowed & ~self.is_blocked
        is_eligible[:FIRST_ITEM] = False
        return is_eligible

    def may_get(self, segments: Longs | int | None, items: Ints | Longs) -> Bools:
        """Return whether --allow and --block let users get items; segments: rows of by_segment, broadcast to items."""
        if self.by_segment is None or segments is None:
            return self.is_eligible[items]
        allowed: Bools = self.by_segment.is_eligible[segments, items]
        return allowed

    @cached_property
    def item_offsets(self) -> Floats:
        """Numbers to add to the scores of items: (size,) float32, -inf for an item that no user may get."""
        return np.where(self.is_eligible, np.log(self.factors), -np.inf).astype(np.float32)

    @property
    def choose(self) -> bool:
        """Whether a list can differ from the best eligible items."""
        others = (self.categories, self.candidates, self.by_segment)
        return bool(len(self.pins)) or self.diversity > 0 or any(rule is not None for rule in others)

    def digest(self) -> str:
        """Return the SHA-256 of everything that a list by the model depends on, except the digests of by_segment."""
        digest = sha256()
        by_user = () if self.by_segment is None else ("is_allowed", "is_blocked", "by_segment")
        for field in fields(self):
            if field.name in by_user:
                continue
            value = getattr(self, field.name)
            digest.update(f"{field.name}:".encode())
            if isinstance(value, ItemsByUser):
                order = pc.sort_indices(value.user_ids)
                items = value.of(value.user_ids.take(order))
                digest.update(repr(value.user_ids.take(order).to_pylist()).encode())
                digest.update(items.offsets.tobytes() + items.items.tobytes())
            else:
                digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        return digest.hexdigest()
