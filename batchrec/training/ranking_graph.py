"""The module that is exported: it scores all items, masks seen and blocked ones, and returns the top k."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchrec.model.blend import ARRAYS, Blend
from batchrec.tables.schemas import FIRST_ITEM, MASK
from batchrec.training.encoder import Encoder
from batchrec.training.wide_top_k import padded, top_items


class BlendArrays(nn.Module):
    """The arrays of a blend as constants of the graph, by the same names."""

    scale: Tensor
    biases: Tensor
    neighbours: Tensor
    similarities: Tensor
    recency: Tensor

    def __init__(self, blend: Blend) -> None:
        super().__init__()
        for name in ARRAYS:
            self.register_buffer(name, torch.from_numpy(getattr(blend, name)))
        self.biases = self.biases.clone()
        self.biases[:FIRST_ITEM] = -torch.inf


class NextItemRanker(nn.Module):
    """Rank the next items for the tokens of batching.scoring_tokens, never PAD, MASK or a seen item."""

    def __init__(self, encoder: Encoder, blend: Blend | None = None) -> None:
        super().__init__()
        # A copy that shares the embeddings: those of millions of items take gigabytes.
        embeddings = encoder.item_embeddings.weight
        shared = nn.Parameter(embeddings.detach(), requires_grad=False)
        self.encoder = copy.deepcopy(encoder, {id(embeddings): shared}).eval().cpu().requires_grad_(False)
        self.encoder.item_biases[:FIRST_ITEM] = -torch.inf
        self.blend = None if blend is None else BlendArrays(blend)
        self._has_encoder = blend is None or blend.has_encoder
        self._has_neighbours = blend is not None and blend.has_neighbours
        self._has_habit = blend is not None and blend.has_habit

    def score(self, tokens: Tensor, item_offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Score the vocabulary for each row, without habits and seen items.

        *Shape:* tokens (rows, length) int32; item_offsets (vocabulary,) float32, added to the scores; -inf for items
        that nobody may get. Returns scores (rows, vocabulary), and the states (rows, hidden_size) behind them.
        """
        embeddings = self.encoder.item_embeddings.weight
        # Offsets are added to the biases, not to the scores: the whole stays one product with a bias.
        if self.blend is None:
            states = self.encoder.last_states(tokens)
            return F.linear(states, embeddings, self.encoder.item_biases + item_offsets), states
        biases = self.blend.biases + item_offsets
        if self._has_encoder:
            states = self.encoder.last_states(tokens)
            scores = F.linear(states * self.blend.scale, embeddings, biases)
        else:
            states = torch.zeros((tokens.shape[0], embeddings.shape[1]))
            scores = biases.repeat(tokens.shape[0], 1)
        if self._has_neighbours:
            scores = self._with_neighbours(scores, tokens)
        return scores, states

    def _with_neighbours(self, scores: Tensor, tokens: Tensor) -> Tensor:
        """Add the similarities of the neighbours of the newest items of each row to the scores of the neighbours."""
        assert self.blend is not None  # noqa: S101 - only called with a blend
        n_recent = self.blend.recency.shape[0]
        # A masked encoder gets a MASK after the newest item: it does not count as one.
        n_items = (tokens > MASK).sum(dim=1, keepdim=True)
        places = n_items - 1 - torch.arange(n_recent)
        items = tokens.gather(1, places.clamp(min=0))
        weights = torch.where(places >= 0, self.blend.recency, 0.0)
        added = self.blend.similarities.index_select(0, items.flatten()) * weights.reshape(-1, 1)
        neighbours = self.blend.neighbours.index_select(0, items.flatten()).to(torch.int64)
        shape = (tokens.shape[0], -1)
        return scores.scatter_add(1, neighbours.reshape(shape), added.reshape(shape))

    def forward(  # noqa: PLR0913, PLR0917 - the arguments of the graph
        self,
        tokens: Tensor,
        seen_rows: Tensor,
        seen_items: Tensor,
        habit_rows: Tensor,
        habit_items: Tensor,
        habit_scores: Tensor,
        asked_rows: Tensor,
        asked_items: Tensor,
        item_offsets: Tensor,
        top_k: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores (rows, top_k) float32 and items (rows, top_k) int32, best first, and what is behind them.

        *Shape:* tokens (rows, length) int32, PAD on the right; seen_rows, seen_items, asked_rows, asked_items (pairs,)
        int64; habit_rows, habit_items (pairs,) int64 and habit_scores (pairs,) float32, added to the scores, a pair
        once; top_k () int64; item_offsets as in `score`.
        Also returns the states (rows, hidden_size) and the scores of the asked pairs (pairs,), both float32.
        """
        # Stays a torch.SymInt: int() would fix top_k at the traced value.
        k: Any = top_k.item()
        n_items = self.encoder.item_biases.numel()
        torch._check(k >= 1)
        torch._check(k <= n_items)
        scores, states = self.score(tokens, item_offsets)
        if self._has_habit:
            scores = scores.index_put((habit_rows, habit_items), habit_scores, accumulate=True)
        asked = scores[asked_rows, asked_items]
        unseen = padded(scores).index_put((seen_rows, seen_items), scores.new_tensor(-torch.inf))
        best, items = top_items(unseen, n_items, k)
        return best, items.to(torch.int32), states, asked
