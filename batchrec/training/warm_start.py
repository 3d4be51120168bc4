"""Start from an earlier model (--init-from): its weights, and the embeddings of its items, matched by id."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchrec.config import EncoderShape, TrainingConfig
from batchrec.errors import ConfigError
from batchrec.model.batching import Histories
from batchrec.model.blend import PREFIX as BLEND_PREFIX
from batchrec.model.directory import load_model
from batchrec.model.parts import weight_views
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder


@dataclass(frozen=True)
class WarmStart:
    """The encoder to start from, and the items that it knows."""

    shape: EncoderShape
    vocabulary: Vocabulary
    weights: dict[str, Tensor]

    def load_into(self, encoder: Encoder, vocabulary: Vocabulary, histories: Histories) -> int:
        """Load these weights into an encoder of the same shape; return how many of its items are new.

        These start as in `start_new_items`. Raises ConfigError if no item is known.
        """
        indexes = self.vocabulary.indexes(vocabulary.item_ids)
        is_known = np.concatenate([np.ones(FIRST_ITEM, dtype=bool), indexes >= FIRST_ITEM])
        places = torch.from_numpy(np.concatenate([np.arange(FIRST_ITEM), indexes]))
        embeddings = self.weights["item_embeddings.weight"][places]
        biases = self.weights["item_biases"][places]
        if not is_known[FIRST_ITEM:].any():
            raise ConfigError("--init-from: the model knows none of the sequences' items. Train without it")
        encoder.load_state_dict(self.weights | {"item_embeddings.weight": embeddings, "item_biases": biases})
        return start_new_items(encoder, is_known, histories)


def start_new_items(encoder: Encoder, is_known: NDArray[np.bool_], histories: Histories) -> int:
    """Set the weights of new items in an encoder on the CPU; return how many there are.

    is_known: (vocabulary,), some items are. A new item starts as the mean of the known items next to it in the
    histories, or of all known items if there are none, with the bias of the known items that are about as frequent.
    """
    known, new = np.flatnonzero(is_known)[FIRST_ITEM:], np.flatnonzero(~is_known)
    embeddings, biases = encoder.item_embeddings.weight.data, encoder.item_biases.data
    embeddings[new] = _mean_of_neighbours(embeddings, is_known, histories)
    # Indexes are in the order of frequency.
    biases[new] = torch.from_numpy(np.interp(new, known, biases[known].numpy())).float()
    return len(new)


def read_warm_start(folder: Path, config: TrainingConfig) -> WarmStart:
    """Read the model to start from. Its shape is kept, except for the dropout if that option is given.

    Raises ModelError if the model directory is broken, ConfigError if an option asks for another shape.
    """
    model = load_model(folder)
    shape = model.manifest.shape
    for name, value in asdict(shape).items():
        wanted = getattr(config, name)
        if wanted not in (None, value) and name != "dropout":
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option} {wanted}: the model to start from, {folder}, has {value}. Pass {option} {value}"
            )
    if config.dropout is not None:
        shape = replace(shape, dropout=config.dropout)
    # Without copies of the blend's arrays, which are gigabytes with millions of items.
    of_encoder = {
        name: torch.from_numpy(weight.copy())
        for name, weight in weight_views(model.weights).items()
        if not name.startswith(BLEND_PREFIX)
    }
    return WarmStart(shape, model.vocabulary, of_encoder)


def _mean_of_neighbours(embeddings: Tensor, is_known: NDArray[np.bool_], histories: Histories) -> Tensor:
    """Average, for each new item, the known items right before and after it; all known items if there are none.

    *Shape:* embeddings (vocabulary, size). Returns (new items, size).
    """
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    is_pair = users[1:] == users[:-1]
    before, after = histories.items[:-1][is_pair], histories.items[1:][is_pair]
    items, neighbours = np.concatenate([before, after]), np.concatenate([after, before])
    counted = is_known[neighbours] & ~is_known[items]
    numbers = np.cumsum(~is_known) - 1
    at = torch.from_numpy(numbers[items[counted]])
    sums = embeddings.new_zeros(int(numbers[-1]) + 1, embeddings.shape[1])
    sums.index_add_(0, at, embeddings[torch.from_numpy(neighbours[counted])])
    n_neighbours = torch.bincount(at, minlength=len(sums))[:, None]
    everything = embeddings[torch.from_numpy(is_known)][FIRST_ITEM:].mean(dim=0)
    return torch.where(n_neighbours > 0, sums / n_neighbours.clamp(min=1), everything)
