"""The rules of a night: which items may stand in whose list, and where."""

from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.batching import Histories, Ints, Longs
from batchrec.ids import without_blanks
from batchrec.ranker import Floats
from batchrec.schemas import FIRST_ITEM

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class UserLists:
    """Items of users by index: user_ids (users,), a user once; items: a row for each, and an empty one at the end."""

    user_ids: pa.Array
    items: Histories

    def of(self, user_ids: pa.Array) -> Histories:
        """Give the items of each user, none to who is not there."""
        places = pc.index_in(without_blanks(user_ids), value_set=self.user_ids).fill_null(len(self.user_ids))
        return self.items.take(places.to_numpy().astype(np.int64))


@dataclass(frozen=True)
class Rules:
    """The rules over the indexes of a vocabulary.

    is_allowed, is_blocked: (size,) bool. factors: (size,) float64, what an item's odds are multiplied by.
    pins: (pins,) int32 items that may stand tonight, and their places, int64 from 0, rising. categories: (size,) int32,
    -1 without one; None where lists have no cap.
    """

    is_allowed: Bools
    is_blocked: Bools
    factors: NDArray[np.float64]
    pins: Ints
    places: Longs
    categories: Ints | None
    max_per_category: int
    diversity: float
    blocked_for: UserLists | None
    candidates: UserLists | None

    @cached_property
    def is_eligible(self) -> Bools:
        """Tell what somebody may get: (size,) bool."""
        is_eligible: Bools = self.is_allowed & ~self.is_blocked
        is_eligible[:FIRST_ITEM] = False
        return is_eligible

    @cached_property
    def item_offsets(self) -> Floats:
        """What is added to the scores of items: (size,) float32, -inf for what nobody may get."""
        return np.where(self.is_eligible, np.log(self.factors), -np.inf).astype(np.float32)

    @property
    def choose(self) -> bool:
        """Whether the best eligible items are not the list yet."""
        return bool(len(self.pins)) or self.categories is not None or self.diversity > 0 or self.candidates is not None

    def digest(self) -> str:
        """Sum up everything that a list of the model depends on."""
        summed = sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            summed.update(f"{field.name}:".encode())
            if isinstance(value, UserLists):
                order = pc.sort_indices(value.user_ids)
                items = value.of(value.user_ids.take(order))
                summed.update(repr(value.user_ids.take(order).to_pylist()).encode())
                summed.update(items.offsets.tobytes() + items.items.tobytes())
            else:
                summed.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        return summed.hexdigest()
