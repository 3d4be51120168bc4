"""One object that maps a batch of histories to a batch of recommendations, Arrow to Arrow, with no state in between."""

from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchrec.artifact import Model
from batchrec.batching import Histories, Longs, SeenPairs, history_digests, scoring_tokens, seen_pairs, token_batches
from batchrec.catalogue import Catalogue
from batchrec.config import ScoringConfig
from batchrec.kept_rankings import KeptRanking
from batchrec.previous_recs import open_previous
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
    users_carried_over: int = 0
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
        self._model = model
        self._ranker = ranker
        self._shape = model.manifest.shape
        self._top_k = config.top_k
        self._keep_seen = config.keep_seen
        self._batch_tokens = config.batch_tokens or _BATCH_TOKENS[ranker.device]
        self._most_users = max(1, _BATCH_SCORES[ranker.device] // model.vocabulary.size)
        self._titles = None if catalogue is None else catalogue.titles_of(model.vocabulary)
        self.schema = recs_schema(
            user_type,
            model.vocabulary.item_ids.type,
            with_titles=self._titles is not None,
            made_by={
                "model_id": model.manifest.model_id,
                "top_k": config.top_k,
                "keep_seen": config.keep_seen,
                "precision": config.precision,
                "titles": None if self._titles is None else sha256(repr(self._titles.to_pylist()).encode()).hexdigest(),
            },
        )
        self._previous = None if config.previous is None else open_previous(Path(config.previous), self.schema)

    def score(self, users: pa.RecordBatch, kept: KeptRanking = KeptRanking(None, 0)) -> ScoredChunk:
        """Recommend to the users of a sequences batch: columns user_id and item_ids.

        A user of whose history the model knows nothing gets the most popular items.
        """
        histories = Histories.from_arrow(users["item_ids"], self._model.vocabulary)
        digests = history_digests(histories)
        is_known = histories.lengths > 0
        found = np.full(len(users), -1) if self._previous is None else self._previous.find(users["user_id"], digests)
        fresh, carried = np.flatnonzero(found < 0), np.flatnonzero(found >= 0)
        n_recs = np.zeros(len(users), np.int64)
        ranking = kept.ranking(users["user_id"], digests, found < 0, lambda: self._best(histories, fresh))
        n_recs[fresh] = ranking.is_there.sum(axis=1)
        recs = self._to_arrow(users["user_id"].take(pa.array(fresh)), digests[fresh], is_known[fresh], ranking)
        if self._previous is not None and len(carried):
            n_recs[carried] = self._previous.n_rows[found[carried]]
            earlier, rows = self._previous.rows(found[carried])
            both = pa.concat_batches([recs, *(batch.cast(self.schema) for batch in earlier)])
            places = np.concatenate([np.arange(len(recs)), len(recs) + rows])
            users_of_rows = np.repeat(np.concatenate([fresh, carried]), n_recs[np.concatenate([fresh, carried])])
            recs = both.take(pa.array(places[np.argsort(users_of_rows, kind="stable")]))
        counts = Counts(
            users_by_model=int((is_known & (n_recs > 0)).sum()),
            users_by_popularity=int((~is_known).sum()),
            users_skipped_all_seen=int((n_recs == 0).sum()),
            users_with_fewer_than_top_k=int(((n_recs > 0) & (n_recs < self._top_k)).sum()),
            users_carried_over=len(carried),
            unknown_items_in_histories=len(users["item_ids"].flatten()) - len(histories.items),
            rows=len(recs),
        )
        return ScoredChunk(recs, len(users), counts)

    def _best(self, histories: Histories, users: Longs) -> Ranking:
        """Rank for each of `users`: by the model, or by popularity where it knows nothing of the history."""
        ranking = self._popular(len(users))
        known = np.flatnonzero(histories.lengths[users] > 0)
        lengths = np.minimum(histories.lengths[users[known]], self._shape.max_len)
        for batch in token_batches(lengths, self._batch_tokens, self._most_users):
            best = self._rank(histories, users[known[batch]])
            ranking.scores[known[batch]] = best.scores
            ranking.items[known[batch]] = best.items
        return ranking

    def _rank(self, histories: Histories, users: Longs) -> Ranking:
        seen = _NOTHING_SEEN if self._keep_seen else seen_pairs(histories, users)
        return self._ranker.rank(scoring_tokens(histories, users, self._shape), seen, self._top_k)

    def _popular(self, n_users: int) -> Ranking:
        """Rank items for every row by their events in the histories trained on, the order of the vocabulary."""
        items = np.arange(FIRST_ITEM, FIRST_ITEM + self._top_k, dtype=np.int32)
        scores = self._model.vocabulary.n_events[: self._top_k].astype(np.float32)
        return Ranking(np.tile(scores, (n_users, 1)), np.tile(items, (n_users, 1)))

    def _to_arrow(
        self, user_ids: pa.Array, digests: Longs, is_known: NDArray[np.bool_], ranking: Ranking
    ) -> pa.RecordBatch:
        n_users, top_k = ranking.scores.shape
        # Where no item is left, PAD or MASK may stand: any item does instead, for the row is left out.
        items = pa.array(np.maximum(ranking.items.ravel() - FIRST_ITEM, 0))
        sources = pa.array([SOURCE_POPULAR, SOURCE_MODEL])
        columns = [
            user_ids.take(pa.array(np.repeat(np.arange(n_users), top_k))),
            pa.array(np.tile(np.arange(1, top_k + 1, dtype=np.int32), n_users)),
            self._model.vocabulary.item_ids.take(items),
            pa.array(ranking.scores.ravel()),
            sources.take(pa.array(np.repeat(is_known.astype(np.int8), top_k))),
            pa.repeat(self._model.manifest.model_id, n_users * top_k),
            pa.array(np.repeat(digests, top_k)),
        ]
        if self._titles is not None:
            columns.append(self._titles.take(items))
        recs = pa.record_batch(columns, schema=self.schema)
        is_there = ranking.is_there.ravel()
        return recs if is_there.all() else recs.filter(pa.array(is_there))
