"""The vocabulary: the items that a model knows, from external id to index and back.

Popularity here answers: how much did the events of an item weigh in the histories that the model was trained on? The
number of these events orders the indexes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.arrays import Doubles, Longs
from batchrec.tables.ids import is_text, without_blanks
from batchrec.tables.schemas import FIRST_ITEM, PAD, items_schema

# The id range per item up to which a lookup table over the whole range is worth its 4 bytes per id.
_MAX_IDS_PER_ITEM = 64


@dataclass(frozen=True)
class Vocabulary:
    """Items in the order of their indexes, which start at FIRST_ITEM: most frequent first.

    item_ids: int64 or string, no repeats; n_events: (items,) int64, events of each item in the training histories.
    weights: (items,) float64, the sum of these events' weights; None if all weigh 1.
    """

    item_ids: pa.Array
    n_events: NDArray[np.int64]
    weights: Doubles | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def size(self) -> int:
        """Return the number of indexes: items, PAD and MASK."""
        return len(self) + FIRST_ITEM

    @property
    def popularity(self) -> Longs | Doubles:
        """The sum of the weights of each item's events: (items,)."""
        return self.n_events if self.weights is None else self.weights

    def extended(self, item_ids: pa.Array) -> "Vocabulary":
        """Append the items that are missing, in their order, with 0 events.

        item_ids: of the same type, no nulls.
        """
        new = pc.unique(item_ids.filter(pc.equal(pa.array(self.indexes(item_ids)), PAD)))
        if len(new) == 0:
            return self
        item_ids = pa.concat_arrays([self.item_ids, new])
        n_events = np.append(self.n_events, np.zeros(len(new), np.int64))
        weights = None if self.weights is None else np.append(self.weights, np.zeros(len(new)))
        return Vocabulary(item_ids, n_events, weights)

    def indexes(self, item_ids: pa.Array) -> NDArray[np.int32]:
        """Look up external ids; PAD for items that the model does not know.

        item_ids: (n,) int64 or string. Returns (n,) int32.
        """
        if item_ids.type != self.item_ids.type:
            # Ids became text, or integers, since training: 1 and "1" are the same item.
            item_ids = item_ids.cast(pa.string())
            known: pa.Array = self.item_ids.cast(pa.string())
        else:
            known = self.item_ids
        if self._index_by_id is not None and pa.types.is_integer(item_ids.type):
            lowest, index_by_id = self._index_by_id
            # An id outside the table is clipped to its first or last entry: both are PAD.
            by_id: NDArray[np.int32] = index_by_id[
                np.clip(item_ids.to_numpy(), lowest, lowest + len(index_by_id) - 1) - lowest
            ]
            return by_id
        indexes = _hashed_indexes(item_ids, known)
        if is_text(item_ids) and (indexes == PAD).any():
            # Padded ids of a log and the trimmed ones of a rule table are the same.
            unknown = np.flatnonzero(indexes == PAD)
            trimmed = without_blanks(item_ids.take(pa.array(unknown)))
            indexes[unknown] = _hashed_indexes(trimmed, self._without_blanks)
        return indexes

    @cached_property
    def _without_blanks(self) -> pa.Array:
        return without_blanks(self.item_ids.cast(pa.string()))

    @cached_property
    def _index_by_id(self) -> tuple[int, NDArray[np.int32]] | None:
        """The lowest id minus one, and the index of each id from there on; None unless ids are dense integers.

        A lookup is five times as fast as in a hash table.
        """
        if not pa.types.is_integer(self.item_ids.type) or len(self) == 0:
            return None
        ids = self.item_ids.to_numpy()
        lowest, highest = int(ids.min()) - 1, int(ids.max()) + 1
        if highest - lowest > _MAX_IDS_PER_ITEM * len(ids) or lowest < -(2**63) or highest >= 2**63:
            return None
        indexes = np.full(highest - lowest + 1, PAD, np.int32)
        indexes[ids - lowest] = np.arange(FIRST_ITEM, self.size)
        return lowest, indexes

    def to_table(self) -> pa.Table:
        """Return the items table of the contract."""
        indexes = np.arange(FIRST_ITEM, self.size, dtype=np.int32)
        counts = [self.n_events] if self.weights is None else [self.n_events, self.weights]
        schema = items_schema(self.item_ids.type, is_weighed=self.weights is not None)
        return pa.table([self.item_ids, pa.array(indexes), *map(pa.array, counts)], schema=schema)


def _hashed_indexes(item_ids: pa.Array, known: pa.Array) -> NDArray[np.int32]:
    """Look up ids among the known ones, in the order of their indexes, by a hash table: (n,) int32, PAD if unknown."""
    places = pc.index_in(item_ids, value_set=known).fill_null(PAD - FIRST_ITEM).to_numpy()
    indexes: NDArray[np.int32] = (places + FIRST_ITEM).astype(np.int32)
    return indexes
