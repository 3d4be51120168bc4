"""The columns of the recs table, each by its name in tables/schemas.recs_schema."""

from typing import Any

import numpy as np
import pyarrow as pa

from batchrec.arrays import Longs
from batchrec.model.directory import Model
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.pools import RecLists
from batchrec.scoring.offer import Offer
from batchrec.tables.schemas import FIRST_ITEM, SOURCES, recs_schema


class RecsColumns:
    """Turns lists into rows of recs; schema: with the title if there is a catalogue."""

    def __init__(self, model: Model, user_type: pa.DataType, offer: Offer, made_by: dict[str, Any]) -> None:
        """Look up the vocabulary's titles once; made_by: as for recs_schema."""
        self._model_id = model.manifest.model_id
        self._offer = offer
        self._titles = offer.titles(offer.vocabulary)
        self.schema = recs_schema(
            user_type, model.vocabulary.item_ids.type, with_titles=self._titles is not None, made_by=made_by
        )

    def rows(self, user_ids: pa.Array, digests: Longs, lists: RecLists, vocabulary: Vocabulary) -> pa.RecordBatch:
        """Return one row per item of the lists; user_ids, digests: of each list; vocabulary: of the items."""
        n_users, top_k = lists.scores.shape
        # Empty places may hold PAD or MASK. Map them to any item: these rows are dropped below.
        items = pa.array(np.maximum(lists.items.ravel() - FIRST_ITEM, 0))
        columns = {
            "user_id": user_ids.take(pa.array(np.repeat(np.arange(n_users), top_k))),
            "rank": pa.array(np.tile(np.arange(1, top_k + 1, dtype=np.int32), n_users)),
            "item_id": vocabulary.item_ids.take(items),
            "score": pa.array(lists.scores.ravel()),
            "source": pa.array(SOURCES).take(pa.array(lists.sources.ravel())),
            "model_id": pa.repeat(self._model_id, n_users * top_k),
            "history_digest": pa.array(np.repeat(digests, top_k)),
        }
        if self._titles is not None:
            is_own = vocabulary is self._offer.vocabulary
            titles = self._titles if is_own else self._offer.titles(vocabulary)
            columns["title"] = titles.take(items)
        recs = pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema)
        is_item = lists.is_item.ravel()
        return recs if is_item.all() else recs.filter(pa.array(is_item))
