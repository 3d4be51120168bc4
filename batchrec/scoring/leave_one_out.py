"""Why items are recommended: what their scores lose if an item of the history is left out."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from batchrec.arrays import Bools, Floats
from batchrec.model.vocabulary import Vocabulary
from batchrec.scoring.scorer import Scorer
from batchrec.tables.schemas import FIRST_ITEM, PAD
from batchrec.tables.sequences_table import OF_EVENTS, filter_lists

# Events in the histories that are scored at a time: a long history without one item, once per item, may exceed memory.
_MAX_EVENTS = 1 << 18


def lost_scores(
    scorer: Scorer, vocabulary: Vocabulary, user: pa.RecordBatch, recommended: Sequence[int | str]
) -> tuple[list[int | str], Floats]:
    """Score some items again for histories that each lack one item.

    user: one row of sequences, with an item that the model knows. recommended: items that it knows.
    Returns the known items of the history, each once, the newest first, and (items of the history, recommended)
    float32: by how much each score falls without the item. Without the only item it falls by all of it.
    """
    indexes = vocabulary.indexes(user["item_ids"].flatten())
    _, firsts = np.unique(indexes[::-1], return_index=True)
    history = [index for index in indexes[::-1][np.sort(firsts)] if index != PAD]
    targets = vocabulary.indexes(pa.array(recommended, vocabulary.item_ids.type)).astype(np.int64)
    scores = np.zeros((len(history), len(targets)), np.float32)
    n_users = max(1, _MAX_EVENTS // len(indexes))
    # Without its only item a history has no score.
    for first in range(0, len(history) if len(history) > 1 else 0, n_users):
        without = [_filtered(user, indexes != index) for index in history[first : first + n_users]]
        scores[first : first + n_users] = scorer.scores(pa.concat_batches(without), targets)
    ids = [vocabulary.item_ids[index - FIRST_ITEM].as_py() for index in history]
    return ids, scorer.scores(user, targets) - scores


def _filtered(user: pa.RecordBatch, is_kept: Bools) -> pa.RecordBatch:
    names = user.schema.names
    columns = [filter_lists(user[name], is_kept) if name in OF_EVENTS else user[name] for name in names]
    return pa.record_batch(columns, schema=user.schema)
