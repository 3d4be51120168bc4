"""The rules of a night: which items may stand in whose list, and where."""

from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.model.batching import Histories
from batchrec.rules.segments import Segments
from batchrec.tables.ids import without_blanks
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.tables.sorted_ids import SortedIds


@dataclass(frozen=True)
class ItemsByUser:
    """Items of users by index: user_ids (users,), a user once; items: a row for each, and an empty one at the end."""

    user_ids: pa.Array
    items: Histories

    @cached_property
    def _sorted(self) -> SortedIds:
        return SortedIds(self.user_ids)

    def of(self, user_ids: pa.Array) -> Histories:
        """Give the items of each user, none to who is not there."""
        places = self._sorted.places(without_blanks(user_ids))
        return self.items.take(np.where(places < 0, len(self.user_ids), places))


@dataclass(frozen=True)
class SegmentRules:
    """Which items users may get where allow and block lists have rows by segment.

    segments: who is in which; numbers (n,) int64: those that the lists name, rising. is_allowed, is_eligible: (n + 1,
    size) bool, the last row for users of all other segments, and of none.
    """

    segments: Segments
    numbers: Longs
    is_allowed: Bools
    is_eligible: Bools

    def of(self, user_ids: pa.Array) -> Longs:
        """Return the row that holds for each user: (users,) int64."""
        numbers = self.segments.of(user_ids)
        rows = np.searchsorted(self.numbers, numbers)
        is_named = np.append(self.numbers, -1)[rows] == numbers
        return np.where(is_named & (numbers >= 0), rows, len(self.numbers))

    @cached_property
    def digests(self) -> Longs:
        """Sum up what each row lets users get: (n + 1,) int64."""
        summed = [sha256(np.packbits(row).tobytes()).digest()[:8] for row in self.is_eligible]
        return np.frombuffer(b"".join(summed), np.int64)


@dataclass(frozen=True)
class CompiledRules:
    """The rules over the indexes of a vocabulary.

    is_allowed, is_blocked: (size,) bool. factors: (size,) float64, what an item's odds are multiplied by.
    pins: (pins,) int32 items that may stand tonight, and their places, int64 from 0, rising. categories: (size,) int32,
    -1 without one; None where lists have no cap. by_segment: None where nobody's segment matters; if it does,
    is_allowed and is_blocked are of what is allowed to anybody, and kept from everybody.
    """

    is_allowed: Bools
    is_blocked: Bools
    factors: NDArray[np.float64]
    pins: Ints
    places: Longs
    categories: Ints | None
    max_per_category: int
    diversity: float
    blocked_for: ItemsByUser | None
    candidates: ItemsByUser | None
    by_segment: SegmentRules | None = None

    @cached_property
    def is_eligible(self) -> Bools:
        """Tell what somebody may get: (size,) bool."""
        is_eligible: Bools = self.is_allowed & ~self.is_blocked
        is_eligible[:FIRST_ITEM] = False
        return is_eligible

    def may_get(self, segments: Longs | int | None, items: Ints | Longs) -> Bools:
        """Return whether the lists of items let users get items, whose segments are rows of by_segment: broadcast."""
        if self.by_segment is None or segments is None:
            return self.is_eligible[items]
        allowed: Bools = self.by_segment.is_eligible[segments, items]
        return allowed

    @cached_property
    def item_offsets(self) -> Floats:
        """What is added to the scores of items: (size,) float32, -inf for what nobody may get."""
        return np.where(self.is_eligible, np.log(self.factors), -np.inf).astype(np.float32)

    @property
    def choose(self) -> bool:
        """Whether the best eligible items are not the list yet."""
        others = (self.categories, self.candidates, self.by_segment)
        return bool(len(self.pins)) or self.diversity > 0 or any(rule is not None for rule in others)

    def digest(self) -> str:
        """Sum up everything that a list of the model depends on, but for what by_segment sums up for each user."""
        summed = sha256()
        by_user = () if self.by_segment is None else ("is_allowed", "is_blocked", "by_segment")
        for field in fields(self):
            if field.name in by_user:
                continue
            value = getattr(self, field.name)
            summed.update(f"{field.name}:".encode())
            if isinstance(value, ItemsByUser):
                order = pc.sort_indices(value.user_ids)
                items = value.of(value.user_ids.take(order))
                summed.update(repr(value.user_ids.take(order).to_pylist()).encode())
                summed.update(items.offsets.tobytes() + items.items.tobytes())
            else:
                summed.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        return summed.hexdigest()
