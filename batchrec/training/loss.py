"""The training loss: cross-entropy of the labelled item at each place, against all other items or sampled negatives.

A label counts by its weight. The sum is divided by the number of labels, not by the sum of their weights, so that a
batch of old or weak events takes a smaller step, and the losses of several processes add up.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchrec.tables.schemas import PAD
from batchrec.training.encoder import Encoder

# Scores computed at a time: on a CPU few enough to stay near its cache, on a GPU more, to keep it busy. With a large
# catalogue, at least so many rows that reading all of its embeddings pays off.
_PIECE_SCORES = {"cpu": 1 << 22, "cuda": 1 << 26, "mps": 1 << 24}
_PIECE_ROWS = 256


class ItemLoss(nn.Module):
    """Mean cross-entropy of the labelled items, over the whole vocabulary or over the labelled item and negatives."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, tokens: Tensor, labels: Tensor, negatives: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        *Shape:* tokens (users, length) int32; labels of the same shape, PAD at places without a prediction;
        negatives (n,) int64 distinct indexes in ascending order, shared by all places; a negative equal to the label
        of a place is ignored there; weights of the labels, in their shape, float32, None if all weigh 1. Returns ()
        float32.
        """
        is_labelled = labels != PAD
        places = None
        n_places = int(is_labelled.sum(dim=1).max())
        if n_places < tokens.shape[1]:
            # The labelled places of each row come first; shorter rows are filled with places that do not count.
            places = is_labelled.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_places]
            is_labelled, labels = is_labelled.gather(1, places), labels.gather(1, places)
            weights = None if weights is None else weights.gather(1, places)
        label_weights = None if weights is None else weights[is_labelled]
        states = self.encoder(tokens, places)[is_labelled]
        return self._loss(states, labels[is_labelled].long(), negatives, label_weights)

    def at_places(
        self, tokens: Tensor, labels: Tensor, places: Tensor | None, negatives: Tensor | None, weights: Tensor
    ) -> Tensor:
        """Compute the loss of an EvenBatch: all steps depend on shapes alone, so none waits for the tensors' values."""
        states = self.encoder(tokens, places).flatten(0, 1)
        return self._loss(states, labels.flatten().long(), negatives, weights.flatten())

    def _loss(self, states: Tensor, labels: Tensor, negatives: Tensor | None, label_weights: Tensor | None) -> Tensor:
        """Compute the loss of labels (n,) int64 with weights (n,) against the negatives at states (n, size)."""
        weights, biases = self.encoder.item_embeddings.weight, self.encoder.item_biases
        own = (states * F.embedding(labels, weights)).sum(dim=1) + biases[labels]
        if negatives is None:
            return _cross_entropy(own, states, weights, biases, labels, label_weights)
        places = torch.searchsorted(negatives, labels).clamp(max=len(negatives) - 1)
        own_places = torch.where(negatives[places] == labels, places, -1)
        embeddings = F.embedding(negatives, weights)
        return _cross_entropy(own, states, embeddings, biases[negatives], own_places, label_weights)


def _cross_entropy(*arguments: Tensor | None) -> Tensor:
    loss: Tensor = _CrossEntropy.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Mean of log(exp(own) + sum(exp(others))) - own, with others = states @ weights.T + biases, piece by piece.

    Each term is multiplied by its label's weight before the mean.

    The gradient of a piece is computed together with its scores, so scores are neither stored nor recomputed: memory
    does not grow with the number of states. Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (ICLR
    2025), and the Liger kernels do the same on GPUs.
    *Shape:* own (n,) scores of the labels; states (n, size); weights (m, size); biases (m,); own_places (n,) int64, the
    row of `weights` that belongs to the label and is ignored, -1 if there is none; label_weights (n,), None if all are
    1.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917
        ctx: Any,
        own: Tensor,
        states: Tensor,
        weights: Tensor,
        biases: Tensor,
        own_places: Tensor,
        label_weights: Tensor | None,
    ) -> Tensor:
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weights.dtype
        columns, column_biases = weights.to(dtype), biases.to(dtype)
        own_gradients, state_gradients = torch.empty_like(own), torch.empty_like(states)
        weight_gradients, bias_gradients = torch.zeros_like(weights), torch.zeros_like(biases)
        loss = own.new_zeros(())
        n_rows = max(_PIECE_ROWS, _PIECE_SCORES[device] // len(weights))
        for start in range(0, len(states), n_rows):
            rows = slice(start, start + n_rows)
            piece = states[rows].to(dtype)
            scores = torch.addmm(column_biases, piece, columns.T).float()
            places = own_places[rows, None].clamp(min=0)
            # Not -inf: if the label is the only negative, a softmax over -inf alone would be NaN.
            ignored = torch.finfo(scores.dtype).min
            scores.scatter_(1, places, scores.gather(1, places).masked_fill(own_places[rows, None] >= 0, ignored))
            shares = scores.softmax(dim=1)
            # The best score has the share 1 / sum(exp(scores - best)), which gives the sum without a second exp.
            others = scores.amax(dim=1) - shares.amax(dim=1).log()
            normalizer = torch.logaddexp(others, own[rows])
            losses, own_gradient = normalizer - own[rows], torch.expm1(own[rows] - normalizer)
            scale = (others - normalizer).exp()
            if label_weights is not None:
                losses, own_gradient, scale = (part * label_weights[rows] for part in (losses, own_gradient, scale))
            loss += losses.sum()
            own_gradients[rows] = own_gradient
            scale, shares = scale[:, None].to(dtype), shares.to(dtype)
            state_gradients[rows] = scale * (shares @ columns)
            weight_gradients += shares.T @ (scale * piece)
            bias_gradients += (shares.T @ scale)[:, 0]
        ctx.save_for_backward(own_gradients, state_gradients, weight_gradients, bias_gradients)
        return loss / len(states)

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        own, states, weights, biases = ctx.saved_tensors
        scale = loss_gradient / len(own)
        return own * scale, states * scale, weights * scale, biases * scale, None, None
