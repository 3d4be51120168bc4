"""Ids that are looked up again and again, chunk after chunk."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Longs


class SortedIds:
    """Ids sorted once: a hash table would be made of all of them again for every chunk that is looked up."""

    def __init__(self, ids: pa.Array) -> None:
        """Sort the ids, each of which stands there once; int64 or string."""
        order = pc.sort_indices(ids)
        self._sorted, self._places = ids.take(order), order.to_numpy().astype(np.int64)

    def places(self, wanted: pa.Array) -> Longs:
        """Return the place of each of the wanted ids among the ids: (wanted,) int64, -1 for one that is missing."""
        if len(self._sorted) == 0:
            return np.full(len(wanted), -1)
        nearest = np.minimum(self._n_below(wanted), len(self._sorted) - 1)
        is_same = pc.equal(self._sorted.take(pa.array(nearest)), wanted).to_numpy(zero_copy_only=False)
        return np.where(is_same, self._places[nearest], -1)

    def _n_below(self, wanted: pa.Array) -> Longs:
        """Count the ids that are less than each of `wanted`, by binary searches side by side: (wanted,) int64."""
        below = np.zeros(len(wanted), np.int64)
        for step in (1 << bit for bit in reversed(range(len(self._sorted).bit_length()))):
            probed = below + step
            is_there = probed <= len(self._sorted)
            probes = self._sorted.take(pa.array(np.where(is_there, probed, 1) - 1))
            is_less = pc.less(probes, wanted).to_numpy(zero_copy_only=False)
            below = np.where(is_there & is_less, probed, below)
        return below
