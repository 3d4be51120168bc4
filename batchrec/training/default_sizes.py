"""Sizes of the encoder and of its training steps: taken from the options, or derived from the histories."""

import numpy as np

from batchrec.config import EncoderShape, TrainingConfig
from batchrec.errors import ConfigError
from batchrec.model.batching import Histories
from batchrec.tables.schemas import FIRST_ITEM

# Up to this size a softmax over all items is cheap. Beyond it, sampled negatives are as good: Klenitskiy & Vasilev,
# "Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?" (RecSys 2023), gained nothing from more than
# 3,000.
_MAX_FULL_SOFTMAX_ITEMS = 5_000
_NEGATIVES = 3_000
# From this many items a step moves only those that it touches: docs/decisions/sparse-steps.md.
_MIN_SPARSE_ITEMS = 200_000
_FEW_EVENTS, _MANY_EVENTS = 500_000, 5_000_000


def encoder_shape(config: TrainingConfig, histories: Histories) -> EncoderShape:
    """Choose the shape of a new encoder: windows that hold 90 % of histories whole, of at most 200 items.

    Raises ConfigError if the number of heads does not divide the hidden size.
    """
    n_events = len(histories.items)
    dropout = config.dropout if config.dropout is not None else (0.3 if n_events < _FEW_EVENTS else 0.2)
    # Histories that are held out whole have no events.
    longest = int(np.quantile(histories.lengths[histories.lengths > 0], 0.9, method="higher"))
    hidden_size = config.hidden_size or (64 if n_events < _MANY_EVENTS else 128)
    if hidden_size % config.n_heads:
        raise ConfigError(f"--n-heads {config.n_heads}: expected a divisor of the hidden size {hidden_size}")
    return EncoderShape(
        objective=config.objective,
        max_len=config.max_len or min(max(16, longest), 200),
        hidden_size=hidden_size,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        dropout=dropout,
    )


def batch_size(config: TrainingConfig, histories: Histories, max_len: int) -> int:
    """Choose a batch size that still gives a small log many steps, which a small model needs to learn."""
    n_windows = int((-(-histories.lengths // max_len)).sum())
    return config.batch_size or min(max(16, n_windows // 128), 256)


def n_negatives(config: TrainingConfig, vocabulary_size: int) -> int:
    """Choose the number of negatives sampled per step; 0 for the full softmax."""
    n_items = vocabulary_size - FIRST_ITEM
    wanted = (_NEGATIVES if n_items > _MAX_FULL_SOFTMAX_ITEMS else 0) if config.negatives is None else config.negatives
    return wanted if wanted < n_items else 0


def has_sparse_steps(config: TrainingConfig, vocabulary_size: int, n_processes: int) -> bool:
    """Choose whether a step moves only the items that it touches: in one process, of many items, with negatives."""
    # torch averages sparse gradients over processes only on CPUs.
    is_large = vocabulary_size - FIRST_ITEM >= _MIN_SPARSE_ITEMS
    return n_processes == 1 and is_large and n_negatives(config, vocabulary_size) > 0
