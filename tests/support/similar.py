"""Models that store which items share users, without a training, and similar items by plain loops."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save

from batchrec.model.blend import Blend
from batchrec.model.directory import write_manifest
from batchrec.model.graph import WEIGHTS
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.signals import count_neighbours
from tests.support.models import CONFIG, indexed, small_encoder, write_graph


def write_model_of(histories: Mapping[Any, Sequence[Any]], folder: Path, **options: Any) -> Path:
    """Write a model directory with the neighbours of the items of histories, and random vectors; return it.

    options: of the training, as the manifest names them.
    """
    counts = Counter(item for items in histories.values() for item in items)
    items = sorted(counts, key=lambda item: (-counts[item], item))
    vocabulary = Vocabulary(pa.array(items), np.array([counts[item] for item in items]))
    index_of = {item: index for index, item in enumerate(items, FIRST_ITEM)}
    own = indexed(*([index_of[item] for item in history] for history in histories.values()))
    blend = Blend(
        np.ones(1, np.float32),
        np.zeros(vocabulary.size, np.float32),
        *count_neighbours(own, vocabulary.size),
        np.zeros(2, np.float32),
        np.zeros(2, np.float32),
    )
    encoder = small_encoder(vocabulary.size)
    folder.mkdir()
    weights = encoder.state_dict() | {name: torch.from_numpy(array) for name, array in blend.arrays().items()}
    (folder / WEIGHTS).write_bytes(save(weights))
    write_graph(encoder, folder, blend)
    write_manifest(folder, vocabulary, encoder.shape, replace(CONFIG, blend="auto", **options), {}, blend.sizes)
    return folder


def lists_of(rows: Sequence[Mapping[str, Any]]) -> dict[Any, list[Any]]:
    """Return the similar items of each item in the rows of a table, in their order."""
    lists: dict[Any, list[Any]] = {}
    for row in rows:
        lists.setdefault(row["item_id"], []).append(row["similar_item_id"])
    return lists
