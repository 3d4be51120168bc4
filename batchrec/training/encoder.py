"""The encoder: a transformer over the items of a history, bidirectional or causal depending on the objective.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer"
(CIKM 2019); Kang & McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). Layer norm precedes each block
(Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020), which keeps training stable.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchrec.config import EncoderShape
from batchrec.tables.schemas import PAD


class Encoder(nn.Module):
    """Item and position embeddings, transformer blocks, and item scores by the same item embeddings.

    Positions count back from the newest item, so that they mean the same in short and long histories.
    """

    def __init__(self, vocabulary_size: int, shape: EncoderShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.shape = shape
        self.is_causal = shape.objective == "causal"
        self.item_embeddings = nn.Embedding(vocabulary_size, size)
        self.position_embeddings = nn.Embedding(shape.max_len, size)
        self.item_biases = nn.Parameter(torch.zeros(vocabulary_size))
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(size, shape.n_heads, shape.dropout) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(size)
        self.apply(_initialize)

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """Encode histories and return the states at `places`, or at every place.

        With `places`, the last block computes no other states.

        *Shape:* tokens (users, length) int, PAD on the right; places (users, n) int64.
        Returns (users, n or length, hidden_size).
        """
        inside = _is_inside(tokens)
        lengths = inside.sum(dim=1, keepdim=True)
        at = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.dropout(self.item_embeddings(tokens) + self.position_embeddings((lengths - 1 - at).clamp(min=0)))
        # A causal encoder never attends to PAD, which is on the right. The mask (users, 1, queries, length) broadcasts
        # over heads.
        mask = None if self.is_causal else inside[:, None, None, :].expand(-1, -1, len(at), -1)
        for block in self.blocks[:-1]:
            hidden = block(hidden, hidden, mask)
        queries = hidden
        if places is not None:
            queries = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))
            is_seen = at <= places[:, :, None] if self.is_causal else inside[:, None].expand(-1, places.shape[1], -1)
            mask = is_seen[:, None]
        states: Tensor = self.norm(self.blocks[-1](queries, hidden, mask))
        return states

    def score_items(self, states: Tensor) -> Tensor:
        """Score every index of the vocabulary. *Shape:* states (n, hidden_size). Returns (n, vocabulary)."""
        return F.linear(states, self.item_embeddings.weight, self.item_biases)

    def last_states(self, tokens: Tensor) -> Tensor:
        """Encode the last place of each row. *Shape:* tokens as in `forward`. Returns (users, hidden_size)."""
        last = _is_inside(tokens).sum(dim=1, keepdim=True) - 1
        states: Tensor = self(tokens, last)[:, 0]
        return states

    def score_last_place(self, tokens: Tensor) -> Tensor:
        """Score the vocabulary at the last places. *Shape:* tokens as in `forward`. Returns (users, vocabulary)."""
        return self.score_items(self.last_states(tokens))


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each with a layer norm before it and a residual connection."""

    def __init__(self, size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(size)
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.attention_output = nn.Linear(size, size)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.feed_forward = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Let each query attend to the places where the mask is true; without a mask, to places up to its own.

        *Shape:* queries (users, n, size); hidden (users, length, size); mask (users, 1, n, length) bool; without a
        mask n is length. Returns (users, n, size).
        """
        n_users, _, size = hidden.shape
        # One row per place, not one matrix per user: onnxruntime then fuses the biases into the products.
        queries, hidden = queries.flatten(0, 1), hidden.flatten(0, 1)
        query = self.query(self.attention_norm(queries))
        key, value = self.key_value(self.attention_norm(hidden)).chunk(2, dim=-1)
        query, key, value = (
            part.view(n_users, -1, self.n_heads, size // self.n_heads).transpose(1, 2) for part in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        queries = queries + self.dropout(self.attention_output(attended.transpose(1, 2).flatten(2).flatten(0, 1)))
        outcome: Tensor = queries + self.dropout(self.feed_forward(self.feed_forward_norm(queries)))
        return outcome.view(n_users, -1, size)


def _is_inside(tokens: Tensor) -> Tensor:
    """Return true for items and MASK, false for PAD, the lowest index.

    Not by `!=`: onnxruntime has no CUDA kernel for ONNX's Equal of opset 19 and would copy to the CPU and back.
    """
    return tokens > PAD


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
