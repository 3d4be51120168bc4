"""The columns of the recs table, each by its name in tables/schemas.recs_schema."""

from typing import Any

import numpy as np
import pyarrow as pa

from batchrec.arrays import Longs
from batchrec.model.directory import Model
from batchrec.model.reasons import Reasons
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.pools import RecLists
from batchrec.scoring.offer import Offer
from batchrec.tables.schemas import FIRST_ITEM, NOT_CARRIED, PAD, PARTS, REASON_COLUMNS, SOURCES, recs_schema


class RecsColumns:
    """Turns lists into rows of recs; schema: with the title if there is a catalogue, and with reasons if asked for."""

    def __init__(
        self, model: Model, user_type: pa.DataType, offer: Offer, made_by: dict[str, Any], *, with_reasons: bool
    ) -> None:
        """Look up the vocabulary's titles once; made_by: as for recs_schema."""
        self._model_id = model.manifest.model_id
        self._offer = offer
        self._titles = offer.titles(offer.vocabulary)
        self.schema = recs_schema(
            user_type,
            model.vocabulary.item_ids.type,
            with_titles=self._titles is not None,
            made_by=made_by,
            with_reasons=with_reasons,
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
        if lists.reasons is not None:
            columns |= _reasons(lists.reasons, vocabulary)
        recs = pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema)
        is_item = lists.is_item.ravel()
        return recs if is_item.all() else recs.filter(pa.array(is_item))


def _reasons(reasons: Reasons, vocabulary: Vocabulary) -> dict[str, pa.Array]:
    """Return the columns of the reasons, a row per place of the lists."""
    codes = reasons.carried_by.ravel()
    is_named = reasons.items != PAD
    offsets = pa.array(np.append(0, np.cumsum(is_named.sum(axis=2))), pa.int32())
    items = vocabulary.item_ids.take(pa.array(reasons.items[is_named] - FIRST_ITEM))
    weights = pa.array(reasons.weights[is_named])
    lists = [
        pa.ListArray.from_arrays(offsets, values, type=pa.list_(pa.field("element", values.type, nullable=False)))
        for values in (items, weights)
    ]
    carried_by = pa.array(PARTS).take(pa.array(codes, mask=codes == NOT_CARRIED))
    return dict(zip(REASON_COLUMNS, [carried_by, *lists], strict=True))
