"""Ids that are looked up for every chunk."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Longs


class SortedIds:
    """Ids that are sorted once. A hash table would have to be built again for every chunk."""

    def __init__(self, ids: pa.Array) -> None:
        """Sort the ids, which are unique; int64 or string."""
        order = pc.sort_indices(ids)
        self._sorted, self._places = ids.take(order), order.to_numpy().astype(np.int64)

    def places(self, wanted: pa.Array) -> Longs:
        """Return the position of each wanted id among the ids: (wanted,) int64, -1 if it is missing."""
        if len(self._sorted) == 0:
            return np.full(len(wanted), -1)
        nearest = np.minimum(self._n_below(wanted), len(self._sorted) - 1)
        is_same = pc.equal(self._sorted.take(pa.array(nearest)), wanted).to_numpy(zero_copy_only=False)
        return np.where(is_same, self._places[nearest], -1)

    def _n_below(self, wanted: pa.Array) -> Longs:
        """Return how many ids are less than each of `wanted`, by simultaneous binary searches: (wanted,) int64."""
        below = np.zeros(len(wanted), np.int64)
        for step in (1 << bit for bit in reversed(range(len(self._sorted).bit_length()))):
            probed = below + step
            is_within = probed <= len(self._sorted)
            probes = self._sorted.take(pa.array(np.where(is_within, probed, 1) - 1))
            is_less = pc.less(probes, wanted).to_numpy(zero_copy_only=False)
            below = np.where(is_within & is_less, probed, below)
        return below
