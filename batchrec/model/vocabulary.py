"""The vocabulary: the items that a model knows, from external id to index and back.

Popularity here answers: how much did the events of an item weigh in the histories that the model was trained on? The
number of these events orders the indexes.
"""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.arrays import Doubles, Longs
from batchrec.model.id_index import IdIndex
from batchrec.tables.ids import is_text, without_blanks
from batchrec.tables.schemas import FIRST_ITEM, PAD, items_schema

# The id range per item up to which a lookup table over the whole range is worth its 4 bytes per id.
_MAX_IDS_PER_ITEM = 64
# With fewer items per id that is looked up, a new hash table is faster than the index that is kept.
_MIN_KNOWN_PER_ID = 4
_INDEX_LOCK = Lock()


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
        if self._index_by_id is not None and pa.types.is_integer(item_ids.type):
            lowest, index_by_id = self._index_by_id
            # An id outside the table is clipped to its first or last entry: both are PAD.
            by_id: NDArray[np.int32] = index_by_id[
                np.clip(item_ids.to_numpy(), lowest, lowest + len(index_by_id) - 1) - lowest
            ]
            return by_id
        is_same_type = item_ids.type == self.item_ids.type
        indexes = self._indexes_among(self.item_ids if is_same_type else self._without_blanks, item_ids)
        if is_text(item_ids) and (indexes == PAD).any():
            # Padded ids of a log and the trimmed ones of a rule table are the same.
            unknown = np.flatnonzero(indexes == PAD)
            trimmed = without_blanks(item_ids.take(pa.array(unknown)))
            indexes[unknown] = self._indexes_among(self._without_blanks, trimmed)
        return indexes

    def _indexes_among(self, known: pa.Array, item_ids: pa.Array) -> NDArray[np.int32]:
        """Look up ids in `item_ids` or `_without_blanks` of the vocabulary: (n,) int32, PAD if unknown."""
        index: IdIndex | None = None
        if len(item_ids) * _MIN_KNOWN_PER_ID < len(known) and not item_ids.null_count:
            # One thread makes the index, and the others wait for it.
            with _INDEX_LOCK:
                index = self._id_index if known is self.item_ids else self._index_without_blanks
        if index is not None and index.is_exact:
            places = index.places(item_ids)
        else:
            places = pc.index_in(item_ids, value_set=known).fill_null(-1).to_numpy()
        indexes: NDArray[np.int32] = np.where(places < 0, PAD, places + FIRST_ITEM).astype(np.int32)
        return indexes

    @cached_property
    def _id_index(self) -> IdIndex:
        return IdIndex(self.item_ids)

    @cached_property
    def _index_without_blanks(self) -> IdIndex:
        return self._id_index if self._without_blanks is self.item_ids else IdIndex(self._without_blanks)

    @cached_property
    def _without_blanks(self) -> pa.Array:
        trimmed = without_blanks(self.item_ids.cast(pa.string()))
        return self.item_ids if trimmed.equals(self.item_ids) else trimmed

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
