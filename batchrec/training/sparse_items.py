"""Steps that cost what a batch touches, not what the catalogue holds, if negatives are sampled.

A step gathers the weights of its items, learns as if these items were the whole vocabulary, and writes them back. Items
move by Adam (Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015) without momentum, weight decay, and
with one moment for the embedding of an item instead of one for each dimension, as in FBGEMM's partial row-wise Adam.
In a step the moment of an untouched item decays, and its average moves towards the same weight. Both happen for all
such steps at once when the item is touched again. docs/decisions/sparse-steps.md has the alternatives.
"""

import math

import numpy as np
import torch
from torch import Tensor

from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder
from batchrec.training.windows import Batch

# The weights with a row per item, by their names in the encoder.
ITEM_WEIGHTS = ("item_embeddings.weight", "item_biases")
# Those of torch's AdamW.
_BETA, _EPSILON = 0.999, 1e-8
# Rows that are brought up to date at a time when all are.
_ROWS_AT_A_TIME = 1 << 16


class SparseItems:
    """The weights of items, the moments of their gradients, and the running averages of the weights."""

    def __init__(self, encoder: Encoder, averaged: Encoder) -> None:
        self._weights = {name: encoder.get_parameter(name) for name in ITEM_WEIGHTS}
        self._averages = {name: averaged.get_parameter(name) for name in ITEM_WEIGHTS}
        # Of each row: the running mean of its squared gradients.
        self._moments = {name: torch.zeros_like(encoder.item_biases.detach()) for name in ITEM_WEIGHTS}
        self._n_steps = 0
        self._log_decay = 0.0
        # The step up to which each row is, and the sum of the logs of the decays at it. float64, because it grows, and
        # on the CPU, because Apple's GPUs have none.
        self._steps = torch.zeros(len(encoder.item_biases), dtype=torch.int32)
        self._log_decays = torch.zeros(len(encoder.item_biases), dtype=torch.float64)
        self._device = encoder.item_biases.device
        self._touched = torch.empty(0, dtype=torch.int64)

    def gather(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """Return the batch with its items numbered from 0, and the weights of these items, by name, to learn.

        PAD and MASK keep their numbers, and items their order.
        """
        assert batch.negatives is not None  # noqa: S101 - else a step touches all items
        parts = np.arange(FIRST_ITEM), batch.tokens.ravel(), batch.labels.ravel(), batch.negatives
        rows, numbers = np.unique(np.concatenate(parts), return_inverse=True)
        _, tokens, labels, negatives = np.split(numbers, np.cumsum([len(part) for part in parts[:-1]]))
        self._touched = torch.from_numpy(rows)
        self._catch_up(self._touched)
        at = self._touched.to(self._device)
        gathered = {name: weight.detach()[at].requires_grad_() for name, weight in self._weights.items()}
        tokens, labels = (part.reshape(batch.tokens.shape).astype(np.int32) for part in (tokens, labels))
        return Batch(tokens, labels, negatives, batch.weights), gathered

    @torch.no_grad()
    def step(self, gathered: dict[str, Tensor], learning_rate: float) -> None:
        """Move the weights that `gather` returned by their gradients."""
        self._n_steps += 1
        correction = 1 - _BETA**self._n_steps
        at = self._touched.to(self._device)
        for name, weight in self._weights.items():
            gradients = gathered[name].grad
            assert gradients is not None  # noqa: S101 - the loss depends on all of them
            squares = gradients.square().view(len(gradients), -1).mean(dim=1)
            moments = self._moments[name][at].mul_(_BETA).add_(squares, alpha=1 - _BETA)
            self._moments[name][at] = moments
            steps = gradients / _by_row(moments.div_(correction).sqrt_().add_(_EPSILON), gradients)
            weight.index_add_(0, at, steps, alpha=-learning_rate)
        self._steps[self._touched] = self._n_steps

    def move_averages(self, decay: float) -> None:
        """Move the averages of the touched items after a step: decay, above 0, is what they keep."""
        self._log_decay += math.log(decay)
        self._catch_up(self._touched)

    def settle(self) -> None:
        """Bring all items up to date."""
        if self._log_decay == 0:
            return
        for rows in torch.arange(len(self._steps)).split(_ROWS_AT_A_TIME):
            self._catch_up(rows)
        self._log_decay = 0.0
        self._log_decays.zero_()

    def state(self) -> dict[str, Tensor]:
        """Return the moments by the names of the weights. All items must be up to date."""
        return dict(self._moments)

    def restore(self, moments: dict[str, Tensor], n_steps: int) -> None:
        """Resume from the state after some steps."""
        for name, values in moments.items():
            self._moments[name] = values.to(self._device)
        self._n_steps = n_steps
        self._steps.fill_(n_steps)

    @torch.no_grad()
    def _catch_up(self, rows: Tensor) -> None:
        """Bring some rows up to date: what the steps that did not touch them would have done to them."""
        at = rows.to(self._device)
        kept = (_BETA ** (self._n_steps - self._steps[rows])).to(self._device)
        shares = -torch.expm1(self._log_decay - self._log_decays[rows]).float().to(self._device)
        for name, weight in self._weights.items():
            self._moments[name][at] *= kept
            averages = self._averages[name]
            averages[at] = averages[at].lerp_(weight[at], _by_row(shares, weight))
        self._steps[rows] = self._n_steps
        self._log_decays[rows] = self._log_decay


def _by_row(values: Tensor, weight: Tensor) -> Tensor:
    """Lay out a value per row so that it meets each dimension of a weight."""
    return values.view(-1, *[1] * (weight.dim() - 1))
