"""The module that is exported: it scores all items, masks seen and blocked ones, and returns the top k."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder


class NextItemRanker(nn.Module):
    """Rank the next items for the tokens of batching.scoring_tokens, never PAD, MASK or a seen item."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).eval().cpu().requires_grad_(False)
        self.encoder.item_biases[:FIRST_ITEM] = -torch.inf

    def score(self, states: Tensor, seen_rows: Tensor, seen_items: Tensor, item_offsets: Tensor) -> Tensor:
        """Score the vocabulary after each state.

        *Shape:* states (rows, hidden_size); seen_rows and seen_items (pairs,) int64; item_offsets (vocabulary,)
        float32, added to the scores; -inf for items that nobody may get.
        Returns (rows, vocabulary), -inf for items that must not be recommended.
        """
        # Added to the biases, not to the scores: the whole stays one product with a bias.
        biases = self.encoder.item_biases + item_offsets
        scores = F.linear(states, self.encoder.item_embeddings.weight, biases)
        return scores.index_put((seen_rows, seen_items), scores.new_tensor(-torch.inf))

    def forward(
        self, tokens: Tensor, seen_rows: Tensor, seen_items: Tensor, item_offsets: Tensor, top_k: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (rows, top_k) float32 and items (rows, top_k) int32, best first, and the states behind them.

        *Shape:* tokens (rows, length) int32, PAD on the right; top_k () int64; the others as in `score`.
        The states are (rows, hidden_size) float32.
        """
        # Stays a torch.SymInt: int() would fix top_k at the traced value.
        k: Any = top_k.item()
        torch._check(k >= 1)
        torch._check(k <= self.encoder.item_biases.numel())
        states = self.encoder.last_states(tokens)
        scores, items = torch.topk(self.score(states, seen_rows, seen_items, item_offsets), k)
        return scores, items.to(torch.int32), states
