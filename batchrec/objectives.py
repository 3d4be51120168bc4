"""What the encoder is trained to do: give the item that is labelled at a place a better score than the others."""

from typing import Any

import torch
from torch import Tensor, nn

from batchrec.encoder import Encoder
from batchrec.schemas import PAD

# Scores held at a time on a CPU, where they should stay near its cache, and on a GPU, which wants more work at once;
# with a large catalogue, enough rows that reading all of its embeddings pays.
_PIECE_SCORES = {"cpu": 1 << 22, "cuda": 1 << 26, "mps": 1 << 24}
_PIECE_ROWS = 256


class ItemLoss(nn.Module):
    """Mean cross-entropy of the labelled items, over the whole vocabulary or over the labelled item and negatives."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor, labels: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Compute the loss.

        *Shape:* tokens (users, length) int32; labels, of the same shape, PAD where nothing is to be predicted;
        negatives (n,) int64 indexes in rising order, each once, shared by all places; one that is a place's label does
        not count there. Returns () float32.
        """
        is_labelled = labels != PAD
        places = None
        n_places = int(is_labelled.sum(dim=1).max())
        if n_places < tokens.shape[1]:
            # The labelled places of each row first; a row with fewer is filled up with places that do not count.
            places = is_labelled.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_places]
            is_labelled, labels = is_labelled.gather(1, places), labels.gather(1, places)
        states, wanted = self.encoder(tokens, places)[is_labelled], labels[is_labelled].long()
        weights, biases = self.encoder.item_embeddings.weight, self.encoder.item_biases
        if negatives is None:
            negatives = torch.arange(len(weights), device=weights.device)
        loss: Tensor = _CrossEntropy.apply(states, weights, biases, wanted, negatives)  # type: ignore[no-untyped-call]
        return loss


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of scores = states @ weights.T + biases of the label and the negatives, a piece at a time.

    The gradient of a piece is made while its scores are at hand, so scores are neither kept nor made twice: memory is
    flat in the number of states. Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (ICLR 2025), and
    the Liger kernels do the same on GPUs.
    *Shape:* states (n, size); weights (vocabulary, size); biases (vocabulary,); labels (n,) and negatives (m,) int64.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917
        ctx: Any, states: Tensor, weights: Tensor, biases: Tensor, labels: Tensor, negatives: Tensor
    ) -> Tensor:
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weights.dtype
        is_all = len(negatives) == len(weights)
        columns = (weights if is_all else weights[negatives]).to(dtype)
        column_biases = (biases if is_all else biases[negatives]).to(dtype)
        label_places = torch.searchsorted(negatives, labels).clamp(max=len(negatives) - 1)
        is_negative = negatives[label_places] == labels
        state_gradients = torch.empty_like(states, dtype=torch.float32)
        column_gradients, bias_gradients = (
            torch.zeros_like(columns, dtype=torch.float32),
            torch.zeros_like(column_biases, dtype=torch.float32),
        )
        label_gradients = torch.empty(len(states), dtype=torch.float32, device=states.device)
        loss = states.new_zeros((), dtype=torch.float32)
        n_rows = max(_PIECE_ROWS, _PIECE_SCORES[device] // len(columns))
        for start in range(0, len(states), n_rows):
            rows = slice(start, start + n_rows)
            piece, label = states[rows].to(dtype), labels[rows]
            own = (piece.float() * weights[label]).sum(dim=1) + biases[label]
            scores = torch.addmm(column_biases, piece, columns.T).float()
            hits = is_negative[rows].nonzero()[:, 0]
            # Not -inf: where the label is the one negative, a softmax over nothing else would be no number.
            scores[hits, label_places[rows][hits]] = torch.finfo(scores.dtype).min
            shares = scores.softmax(dim=1)
            # The best score has the share 1 / sum(exp(scores - best)): that gives the sum without a second exp.
            others = scores.amax(dim=1) - shares.amax(dim=1).log()
            normalizer = torch.logaddexp(others, own)
            loss += (normalizer - own).sum()
            scale = (others - normalizer).exp()[:, None]
            shares = shares.to(dtype)
            own_gradient = torch.expm1(own - normalizer)
            label_gradients[rows] = own_gradient
            state_gradients[rows] = scale * (shares @ columns).float() + own_gradient[:, None] * weights[label]
            column_gradients += (shares.T @ (piece * scale.to(dtype))).float()
            bias_gradients += (shares.T @ scale.to(dtype))[:, 0].float()
        weight_gradients = column_gradients
        if not is_all:
            weight_gradients = torch.zeros_like(weights).index_copy_(0, negatives, column_gradients)
            bias_gradients = torch.zeros_like(biases).index_copy_(0, negatives, bias_gradients)
        weight_gradients.index_add_(0, labels, label_gradients[:, None] * states.float())
        bias_gradients.index_add_(0, labels, label_gradients)
        ctx.save_for_backward(state_gradients, weight_gradients, bias_gradients)
        ctx.n_states, ctx.dtype = len(states), states.dtype
        return loss / len(states)

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        scale = loss_gradient / ctx.n_states
        states, weights, biases = ctx.saved_tensors
        return (states * scale).to(ctx.dtype), weights * scale, biases * scale, None, None
