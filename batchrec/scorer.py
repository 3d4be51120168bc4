"""One object that maps a batch of histories to a batch of recommendations, Arrow to Arrow, with no state in between."""

from dataclasses import astuple, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchrec.artifact import Model
from batchrec.batching import Histories, Ints, Longs, SeenPairs, scoring_tokens, seen_pairs, token_batches
from batchrec.catalogue import Catalogue
from batchrec.config import ScoringConfig
from batchrec.ranker import Ranker, Ranking
from batchrec.schemas import FIRST_ITEM, SOURCE_MODEL, SOURCE_POPULAR, recs_schema

# Tokens in one run of the model, and scores of items: on a CPU few, for its cache; a GPU wants more work at once.
_BATCH_TOKENS = {"cpu": 1 << 11, "cuda": 1 << 18}
_BATCH_SCORES = {"cpu": 1 << 22, "cuda": 1 << 27}
_NOTHING_SEEN = SeenPairs(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class Counts:
    """Users by where their recommendations come from; each is in one of the first three."""

    users_by_model: int = 0
    users_by_popularity: int = 0
    users_skipped_all_seen: int = 0
    users_with_fewer_than_top_k: int = 0
    unknown_items_in_histories: int = 0
    rows: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class ScoredChunk:
    """Recommendations for a batch of users, by the schema of recs, and what there is to report of it."""

    recs: pa.RecordBatch
    n_users: int
    counts: Counts


class Scorer:
    """Recommends to a batch of users; `score` may be called from several threads at once."""

    def __init__(
        self,
        model: Model,
        ranker: Ranker,
        user_type: pa.DataType,
        config: ScoringConfig,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.schema = recs_schema(user_type, model.vocabulary.item_ids.type, with_titles=catalogue is not None)
        self._model = model
        self._ranker = ranker
        self._shape = model.manifest.shape
        self._top_k = config.top_k
        self._keep_seen = config.keep_seen
        self._batch_tokens = config.batch_tokens or _BATCH_TOKENS[ranker.device]
        self._most_users = max(1, _BATCH_SCORES[ranker.device] // model.vocabulary.size)
        self._titles = None if catalogue is None else catalogue.titles_of(model.vocabulary)

    def score(self, users: pa.RecordBatch) -> ScoredChunk:
        """Recommend to the users of a sequences batch: columns user_id and item_ids.

        A user of whose history the model knows nothing gets the most popular items.
        """
        histories = Histories.from_arrow(users["item_ids"], self._model.vocabulary)
        is_known = histories.lengths > 0
        ranking = self._popular(len(users))
        known = np.flatnonzero(is_known)
        lengths = np.minimum(histories.lengths[known], self._shape.max_len)
        for chosen in token_batches(lengths, self._batch_tokens, self._most_users):
            best = self._rank(histories, known[chosen])
            ranking.scores[known[chosen]] = best.scores
            ranking.items[known[chosen]] = best.items
        # Fewer unseen items than top_k leave -inf at the end of a row.
        is_there = ranking.scores != -np.inf
        n_found = is_there.sum(axis=1)
        recs = self._to_arrow(users["user_id"], ranking, is_there, is_known)
        counts = Counts(
            users_by_model=int((is_known & (n_found > 0)).sum()),
            users_by_popularity=int((~is_known).sum()),
            users_skipped_all_seen=int((n_found == 0).sum()),
            users_with_fewer_than_top_k=int(((n_found > 0) & (n_found < self._top_k)).sum()),
            unknown_items_in_histories=len(users["item_ids"].flatten()) - len(histories.items),
            rows=len(recs),
        )
        return ScoredChunk(recs, len(users), counts)

    def _rank(self, histories: Histories, users: Longs) -> Ranking:
        seen = _NOTHING_SEEN if self._keep_seen else seen_pairs(histories, users)
        return self._ranker.rank(scoring_tokens(histories, users, self._shape), seen, self._top_k)

    def _popular(self, n_users: int) -> Ranking:
        """Rank items for every row by their events in the histories trained on, the order of the vocabulary."""
        items = np.arange(FIRST_ITEM, FIRST_ITEM + self._top_k, dtype=np.int32)
        scores = self._model.vocabulary.n_events[: self._top_k].astype(np.float32)
        return Ranking(np.tile(scores, (n_users, 1)), np.tile(items, (n_users, 1)))

    def _to_arrow(
        self, user_ids: pa.Array, ranking: Ranking, is_there: NDArray[np.bool_], is_known: NDArray[np.bool_]
    ) -> pa.RecordBatch:
        rows, places = np.nonzero(is_there)
        items: Ints = ranking.items[is_there] - FIRST_ITEM
        sources = pa.array([SOURCE_POPULAR, SOURCE_MODEL])
        columns = [
            user_ids.take(pa.array(rows)),
            pa.array((places + 1).astype(np.int32)),
            self._model.vocabulary.item_ids.take(pa.array(items)),
            pa.array(ranking.scores[is_there]),
            sources.take(pa.array(is_known[rows].astype(np.int8))),
            pa.repeat(self._model.manifest.model_id, len(rows)),
        ]
        if self._titles is not None:
            columns.append(self._titles.take(pa.array(items)))
        return pa.record_batch(columns, schema=self.schema)
