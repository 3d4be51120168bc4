"""What the encoder is trained to do."""

from typing import Any

import torch
from torch import Tensor

from batchrec.encoder import Encoder
from batchrec.schemas import MASK

# Scores held at a time on a CPU, where they should stay near its cache, and on a GPU, which wants more work at once;
# with a large catalogue, enough rows that reading all of its embeddings pays.
_PIECE_SCORES = {"cpu": 1 << 22, "cuda": 1 << 26, "mps": 1 << 24}
_PIECE_ROWS = 256


def masked_item_loss(encoder: Encoder, tokens: Tensor, masked: Tensor) -> Tensor:
    """Mean cross-entropy, over the whole vocabulary, of the items behind the masked places.

    *Shape:* tokens (users, length) int32; masked (users, length) bool, false in the padding.
    """
    n_places = int(masked.sum(dim=1).max())
    # The masked places of each row first; a row with fewer of them is filled up with places that do not count.
    places = masked.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_places]
    counts = masked.gather(1, places)
    states = encoder(tokens.masked_fill(masked, MASK), places)[counts]
    labels = tokens.gather(1, places)[counts].long()
    weights, biases = encoder.item_embeddings.weight, encoder.item_biases
    loss: Tensor = _CrossEntropy.apply(states, weights, biases, labels)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of scores = states @ weights.T + biases, a piece of the scores at a time.

    The gradient of a piece is made while its scores are at hand, so scores are neither kept nor made twice: memory is
    flat in the number of states. Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (ICLR 2025), and
    the Liger kernels do the same on GPUs.
    *Shape:* states (n, size); weights (vocabulary, size); biases (vocabulary,); labels (n,) int64.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weights: Tensor, biases: Tensor, labels: Tensor) -> Tensor:
        state_gradients = torch.empty_like(states)
        weight_gradients, bias_gradients = torch.zeros_like(weights), torch.zeros_like(biases)
        loss = states.new_zeros((), dtype=torch.float32)
        n_rows = max(_PIECE_ROWS, _PIECE_SCORES[states.device.type] // len(weights))
        for start in range(0, len(states), n_rows):
            rows = slice(start, start + n_rows)
            piece, label = states[rows].to(weights.dtype), labels[rows, None]
            scores = torch.addmm(biases, piece, weights.T).float()
            gradients = scores.softmax(dim=1)
            # The best score has the probability 1 / sum(exp(scores - best)): that gives the sum without a second exp.
            normalizer = scores.amax(dim=1) - gradients.amax(dim=1).log()
            loss += (normalizer - scores.gather(1, label)[:, 0]).sum()
            # Softmax less one at the label is the gradient of the scores.
            gradients.scatter_add_(1, label, gradients.new_full(label.shape, -1.0))
            state_gradients[rows] = gradients @ weights
            weight_gradients.addmm_(gradients.T, piece)
            bias_gradients += gradients.sum(dim=0)
        ctx.save_for_backward(state_gradients, weight_gradients, bias_gradients)
        ctx.n_states = len(states)
        return loss / len(states)

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scale = loss_gradient / ctx.n_states
        states, weights, biases = ctx.saved_tensors
        return states * scale, weights * scale, biases * scale, None
