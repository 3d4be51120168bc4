"""Training batches: windows of the histories, and the items to predict in them."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from batchrec.arrays import Floats, Ints, Longs
from batchrec.config import EncoderShape, TrainingConfig
from batchrec.errors import InputError
from batchrec.model.batching import Histories, length_sorted, pad
from batchrec.system.logs import hides_bars
from batchrec.tables.schemas import FIRST_ITEM, MASK, PAD
from batchrec.training.default_sizes import batch_size, n_negatives


@dataclass(frozen=True)
class Batch:
    """Windows of similar length, and the items to predict at their places.

    tokens, labels: (windows, length) int32, PAD on the right; the label is PAD at places without a prediction.
    negatives: (n,) int64 indexes in ascending order, shared by all labels; None for the whole vocabulary. weights: of
    the labels, in their shape, float32; 1 is the mean of all events. None if all weigh 1.
    """

    tokens: Ints
    labels: Ints
    negatives: Longs | None
    weights: Floats | None = None

    @property
    def n_labels(self) -> int:
        """Count the items to predict."""
        return int(np.count_nonzero(self.labels))

    def share(self, rank: int, n_processes: int) -> "Batch":
        """Return the windows that one of several processes works on."""
        mine = slice(rank, None, n_processes)
        weights = None if self.weights is None else self.weights[mine]
        return Batch(self.tokens[mine], self.labels[mine], self.negatives, weights)


def draw_batches(
    histories: Histories,
    vocabulary_size: int,
    shape: EncoderShape,
    config: TrainingConfig,
    generator: np.random.Generator,
) -> Generator[Batch, None, None]:
    """Yield an epoch's batches in random order, under a progress bar.

    Raises InputError if no history has a next item to learn from.
    """
    size, n_drawn = batch_size(config, histories, shape.max_len), n_negatives(config, vocabulary_size)
    max_len, min_length = _window_lengths(shape)
    starts, lengths = draw_windows(histories, max_len, generator, config.min_epoch_steps * size, min_length)
    if len(starts) == 0:
        raise InputError("no history has two items besides the held-out one: there is no next item to learn from")
    shuffled = generator.permutation(len(starts))
    starts, lengths = starts[shuffled], lengths[shuffled]
    batches = list(length_sorted(lengths, size))
    all_weights, weights = histories.relative_weights, None
    for number in tqdm(generator.permutation(len(batches)), "epoch", unit="batch", leave=False, disable=hides_bars()):
        rows = batches[number]
        items = pad(histories.items, starts[rows], lengths[rows])
        if all_weights is not None:
            # The bits of 0.0 are those of PAD.
            weights = pad(all_weights.view(np.int32), starts[rows], lengths[rows]).view(np.float32)
        if histories.ties is not None and not config.keep_ties:
            ties = pad(histories.ties, starts[rows], lengths[rows]).astype(bool)
            order = tie_order(ties, generator)
            items = np.take_along_axis(items, order, axis=1)
            weights = None if weights is None else np.take_along_axis(weights, order, axis=1)
        if shape.objective == "causal":
            tokens, labels = next_item_labels(items)
            weights = None if weights is None else np.ascontiguousarray(weights[:, 1:])
        else:
            masked = mask_places(lengths[rows], config.mask_prob, config.last_mask_prob, generator)
            tokens, labels = mask_items(items, masked)
        negatives = None
        if n_drawn:
            negatives = np.sort(generator.choice(vocabulary_size - FIRST_ITEM, n_drawn, replace=False)) + FIRST_ITEM
        yield Batch(tokens, labels, negatives, weights)


def count_batches(histories: Histories, shape: EncoderShape, config: TrainingConfig) -> int:
    """Count the batches of an epoch."""
    size = batch_size(config, histories, shape.max_len)
    max_len, min_length = _window_lengths(shape)
    n_windows = int(_count_windows(histories, max_len, min_length).sum())
    n_passes = _count_passes(n_windows, config.min_epoch_steps * size)
    return -(-n_windows * n_passes // size)


def _window_lengths(shape: EncoderShape) -> tuple[int, int]:
    """Return the maximum and the minimum length of a window."""
    # A causal encoder sees max_len items and predicts the one after each.
    n_after = 1 if shape.objective == "causal" else 0
    return shape.max_len + n_after, 1 + n_after


def _count_windows(histories: Histories, max_len: int, min_length: int) -> Longs:
    """Return how many windows each history gives in one pass: (users,)."""
    n_windows: Longs = np.where(histories.lengths < min_length, 0, -(-histories.lengths // max_len))
    return n_windows


def _count_passes(n_windows: int, min_windows: int) -> int:
    return -(-min_windows // max(1, n_windows))


def tie_order(ties: NDArray[np.bool_], generator: np.random.Generator) -> Longs:
    """Draw an order of the places of rows, in the shape of ties, that shuffles the items of the same timestamp.

    Their own order means nothing. ties: (rows, length), true if an item has the timestamp of the one before it.
    """
    moments = np.cumsum(~ties, axis=1)
    return np.argsort(moments + generator.random(ties.shape), axis=1)


def next_item_labels(items: Ints) -> tuple[Ints, Ints]:
    """Label each place with the next item: items (rows, length) to tokens and labels (rows, length - 1)."""
    labels = np.ascontiguousarray(items[:, 1:])
    return np.where(labels == PAD, PAD, items[:, :-1]).astype(np.int32), labels


def mask_items(items: Ints, masked: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Replace the items at the masked places by MASK, and label these places with them; both in the shape of items."""
    return np.where(masked, MASK, items).astype(np.int32), np.where(masked, items, PAD).astype(np.int32)


def draw_windows(
    histories: Histories, max_len: int, generator: np.random.Generator, min_windows: int = 1, min_length: int = 1
) -> tuple[Longs, Longs]:
    """Draw windows for an epoch: starts and lengths, both (windows,) int64, into `histories.items`.

    A history of up to max_len items is one window. A longer one gives its newest max_len items, as in scoring, and as
    many windows from random places as it takes to cover its length once. If that makes fewer than `min_windows`
    windows, it is repeated. A history shorter than `min_length` gives none.
    """
    n_windows = _count_windows(histories, max_len, min_length)
    n_passes = _count_passes(int(n_windows.sum()), min_windows)
    users = np.repeat(np.arange(len(histories)), n_windows)
    is_newest = np.diff(users, prepend=-1) != 0
    users, is_newest = np.tile(users, n_passes), np.tile(is_newest, n_passes)
    lengths = np.minimum(histories.lengths[users], max_len)
    slack = histories.lengths[users] - lengths
    shifts = np.where(is_newest, slack, generator.integers(0, slack + 1))
    return histories.offsets[users] + shifts, lengths


def mask_places(
    lengths: Longs, mask_prob: float, last_mask_prob: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw the places to mask: (rows, longest) bool, at least one in each row.

    Each place is masked with probability mask_prob; in a share last_mask_prob of the rows, only the last place is.
    """
    places = np.arange(lengths.max())
    inside = places < lengths[:, None]
    last = places == lengths[:, None] - 1
    masked = (generator.random(inside.shape) < mask_prob) & inside
    only_last = (generator.random(len(lengths)) < last_mask_prob) | ~masked.any(axis=1)
    chosen: NDArray[np.bool_] = np.where(only_last[:, None], last, masked)
    return chosen
