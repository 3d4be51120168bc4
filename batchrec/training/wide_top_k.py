"""The top k of rows, as the graph takes it: of wide rows by the maxima of groups, which reads the scores only once."""

from typing import Any

import torch
from torch import Tensor, topk

from batchrec.model.runs import GROUP, WIDE


def padded(scores: Tensor) -> Tensor:
    """Append scores of -inf to wide rows, up to a whole number of groups; `top_items` expects that.

    *Shape:* scores (rows, n). Returns (rows, n or more).
    """
    n_missing = -scores.shape[1] % GROUP if is_wide(scores.shape[1]) else 0
    if n_missing == 0:
        return scores
    return torch.cat([scores, scores.new_full((scores.shape[0], n_missing), -torch.inf)], dim=1)


def top_items(scores: Tensor, n_items: int, k: Any) -> tuple[Tensor, Tensor]:
    """Return the k best scores of each row, best first, and their places; the lower of equal scores' places is first.

    *Shape:* scores (rows, `padded` n_items); k: up to n_items, may be a torch.SymInt. Returns (rows, k), places int64
    below n_items.

    ONNX's TopK takes the lower place of equal scores, and so does this way for wide rows: Every group of places that
    comes before another, by its maximum and then by its places, has an item that comes before all items of the other.
    So an item of a group beyond the k first groups has k items before it. The groups' scores are laid out in the order
    of their places, so that the last TopK too takes the lower place. CUDA's TopK takes any of equal scores or maxima:
    then the scores are the same, and model/ranker.py chooses the items. The idea is that of the delegates of Gaihre et
    al., "Dr. Top-k" (SC 2021).
    """
    if not is_wide(n_items):
        ranked = topk(scores, k)
        return ranked.values, ranked.indices
    groups = scores.unflatten(1, (-1, GROUP))
    n_chosen = torch.sym_min(k, groups.shape[1])
    chosen = topk(groups.amax(dim=2), n_chosen).indices
    chosen = topk(chosen, n_chosen, largest=False).values
    places = (chosen[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
    ranked = topk(scores.gather(1, places), k)
    # Places beyond the last item hold -inf. Among scores of -inf, a device may choose one of them.
    return ranked.values, places.gather(1, ranked.indices).clamp(max=n_items - 1)


def is_wide(n_items: int) -> bool:
    """Return whether rows of this many scores are ranked by groups."""
    return n_items > WIDE
