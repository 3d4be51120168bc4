"""An index of many ids that serves lookup after lookup; a hash table of pyarrow is made again for each."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.arrays import Longs

_WORD = 8
# The factors of the finalizer of SplitMix64: Steele et al., "Fast Splittable Pseudorandom Number Generators" (OOPSLA
# 2014).
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class IdIndex:
    """The places of ids by their keys: integers by themselves, texts by digests. 12 bytes per id."""

    def __init__(self, ids: pa.Array) -> None:
        """ids: int64 or string, without nulls; of equal ones the first is found."""
        self._ids = ids
        keys = _keys(ids)
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], order.astype(np.int32)
        again = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        # Of two texts with the same digest only one would be found.
        self.is_exact = bool(pc.all(pc.equal(self._at(again), self._at(again + 1)), min_count=0).as_py())

    def places(self, ids: pa.Array) -> Longs:
        """Return the place of each id, -1 if it is unknown: (n,) int64.

        ids: of the same type, without nulls. There are ids to be found.
        """
        keys = _keys(ids)
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        found = np.flatnonzero(self._keys[at] == keys)
        is_same = pc.equal(self._at(at[found]), ids.take(pa.array(found))).to_numpy(zero_copy_only=False)
        places: Longs = np.full(len(ids), -1)
        places[found[is_same]] = self._places[at[found[is_same]]]
        return places

    def _at(self, at: Longs) -> pa.Array:
        return self._ids.take(pa.array(self._places[at]))


def _keys(ids: pa.Array) -> NDArray[np.uint64]:
    """Return a number for each id, the same for the same id: (n,) uint64."""
    if pa.types.is_integer(ids.type):
        keys: NDArray[np.uint64] = ids.to_numpy().view(np.uint64)
        return keys
    texts = ids.cast(pa.large_binary())
    _, offsets, contents = texts.buffers()
    ends: NDArray[Any] = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    own = np.frombuffer(contents or b"", np.uint8)[ends[0] : ends[-1]]
    # A whole word follows every text.
    words = np.lib.stride_tricks.sliding_window_view(np.concatenate([own, np.zeros(_WORD, np.uint8)]), _WORD)
    starts, lengths = ends[:-1] - ends[0], np.diff(ends)
    digests = lengths.astype(np.uint64)
    rows = np.flatnonzero(lengths > 0)
    for start in range(0, int(lengths.max(initial=0)), _WORD):
        rows = rows[lengths[rows] > start]
        word = words[starts[rows] + start].view("<u8")[:, 0]
        # Without the bytes of the text behind it.
        n_bits = 8 * np.minimum(lengths[rows] - start, _WORD).astype(np.uint64)
        word &= np.uint64(2**64 - 1) >> (np.uint64(64) - n_bits)
        digests[rows] = mixed(digests[rows] ^ word)
    return digests


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of numbers, in place, by the finalizer of SplitMix64; returns them."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        values ^= values >> np.uint64(shift)
        values *= factor
    values ^= values >> np.uint64(31)
    return values
