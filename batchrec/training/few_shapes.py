"""Batches in few shapes: each shape is one CUDA graph."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchrec.arrays import Floats, Ints, Longs
from batchrec.tables.schemas import PAD
from batchrec.training.windows import Batch

# Lengths of windows and numbers of labelled places are multiples of this.
_MULTIPLE = 16


class EvenBatch(NamedTuple):
    """A batch with as many places to predict at in each window; some do not count.

    tokens: (windows, length) int32, PAD on the right; labels: (windows, places) int32, PAD at places that do not count;
    places: (windows, places) int64 in the windows, None if places is length; negatives: (n,) int64, None for the whole
    vocabulary; weights: (windows, places) float32, 0 at places that do not count. Their mean over all places makes a
    mean loss over all places that of the labels alone.
    """

    tokens: Ints
    labels: Ints
    places: Longs | None
    negatives: Longs | None
    weights: Floats


def in_few_shapes(batch: Batch, max_len: int) -> EvenBatch:
    """Fill up windows, up to max_len, and labelled places to multiples of 16."""
    is_labelled = batch.labels != PAD
    weights = is_labelled.astype(np.float32) if batch.weights is None else is_labelled * batch.weights
    length = _rounded(batch.tokens.shape[1], max_len)
    n_places = _rounded(int(is_labelled.sum(axis=1).max()), length)
    tokens, labels, weights = (_filled(part, length) for part in (batch.tokens, batch.labels, weights))
    places = None
    if n_places < length:
        # The labelled places of each window come first.
        places = np.argsort(labels == PAD, axis=1, kind="stable")[:, :n_places]
        labels, weights = (np.take_along_axis(part, places, axis=1) for part in (labels, weights))
    return EvenBatch(tokens, labels, places, batch.negatives, weights * np.float32(weights.size / batch.n_labels))


def _rounded(number: int, limit: int) -> int:
    return min(-(-number // _MULTIPLE) * _MULTIPLE, limit)


def _filled(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Append zeros, the value of PAD, to each row."""
    return np.pad(array, ((0, 0), (0, length - array.shape[1])))
