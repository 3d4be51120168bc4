"""One object that maps a batch of histories to a batch of recommendations, Arrow to Arrow, with no state in between."""

import logging
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from batchrec.arrays import Bools, Longs
from batchrec.config import ScoringConfig
from batchrec.model.batching import Histories, also_seen, history_digests, scoring_tokens, seen_by, token_batches
from batchrec.model.directory import Model
from batchrec.model.ranker import Ranker, Ranking, check_scores
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.pools import RecLists
from batchrec.rules.ruled_ranker import RuledRanker
from batchrec.rules.user_limits import UserLimits, limits_of
from batchrec.scoring.chunk_checkpoints import ChunkCheckpoint
from batchrec.scoring.empty_lists import emptied_by
from batchrec.scoring.offer import Offer
from batchrec.scoring.previous_table import open_previous
from batchrec.tables.schemas import FIRST_ITEM, SOURCES, recs_schema

_log = logging.getLogger(__name__)

# Tokens in one run of the model, and scores of items: on a CPU few, for its cache; a GPU wants more work at once.
_BATCH_TOKENS = {"cpu": 1 << 11, "cuda": 1 << 18}
_BATCH_SCORES = {"cpu": 1 << 22, "cuda": 1 << 27}


@dataclass(frozen=True)
class Counts:
    """Users by where their recommendations come from; each is in one of the first four.

    emptied_by: users without a list by the rule, as its option, that left them nothing.
    """

    users_by_model: int = 0
    users_by_popularity: int = 0
    users_skipped_all_seen: int = 0
    emptied_by: Counter[str] = field(default_factory=Counter)
    users_with_fewer_than_top_k: int = 0
    users_carried_over: int = 0
    unknown_items_in_histories: int = 0
    rows: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


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
        offer: Offer,
    ) -> None:
        self._model = model
        self._ranker = ranker
        self._offer = offer
        rules = offer.rules
        knows_all = offer.vocabulary.size == model.vocabulary.size
        # Without rules the graph's best are the list.
        self._ruled = RuledRanker(ranker, model, rules, config.top_k) if rules.choose or not knows_all else None
        self._shape = model.manifest.shape
        self._top_k = config.top_k
        self._keep_seen = config.keep_seen
        self._batch_tokens = config.batch_tokens or _BATCH_TOKENS[ranker.device]
        self._most_users = max(1, _BATCH_SCORES[ranker.device] // model.vocabulary.size)
        self._titles = offer.titles(offer.vocabulary)
        self.schema = recs_schema(
            user_type,
            model.vocabulary.item_ids.type,
            with_titles=self._titles is not None,
            made_by={
                "model_id": model.manifest.model_id,
                "top_k": config.top_k,
                "keep_seen": config.keep_seen,
                "precision": config.precision,
                "device": ranker.device,
                "onnxruntime": ort.__version__,
                **offer.digests(),
            },
        )
        self._previous = None
        if config.previous is not None and config.precision == "int8":
            _log.info("int8: a list depends on who else is in its batch, so everybody is scored")
        elif config.previous is not None:
            self._previous = open_previous(Path(config.previous), self.schema)

    @property
    def carries_over(self) -> bool:
        """Whether there is an earlier table that users may be carried over from."""
        return self._previous is not None

    def score(self, users: pa.RecordBatch, checkpoint: ChunkCheckpoint | None = None) -> ScoredChunk:
        """Recommend to the users of a sequences batch: columns user_id, item_ids and, if there is one, also_seen.

        A user of whose history the model knows nothing gets popular items, anew every night.
        """
        histories = Histories.from_arrow(users["item_ids"], self._offer.vocabulary)
        others = also_seen(users, self._offer.vocabulary)
        seen = None if self._keep_seen else histories.followed_by(others)
        limits = limits_of(self._offer.rules, seen, users["user_id"])
        digests = history_digests(histories, others)
        if self._offer.rules.by_segment is not None and limits.segments is not None:
            # So that a user who may get other items is scored again, and nobody else is.
            digests ^= self._offer.rules.by_segment.digests[limits.segments]
        known = histories if self._ruled is None else histories.below(self._model.vocabulary.size)
        is_known = known.lengths > 0
        found = np.full(len(users), -1)
        if self._previous is not None:
            found = np.where(is_known, self._previous.find(users["user_id"], digests), -1)
        fresh, carried = np.flatnonzero(found < 0), np.flatnonzero(found >= 0)
        n_recs = np.zeros(len(users), np.int64)
        if checkpoint is None:
            lists = self._best(known, fresh, limits)
        else:
            lists = checkpoint.read_or_rank(
                users["user_id"], digests, found < 0, lambda: self._best(known, fresh, limits)
            )
        cold = np.flatnonzero(~is_known[fresh])
        vocabulary = self._offer.vocabulary
        if len(cold):
            lists.put(cold, self._offer.popular.lists(users.take(pa.array(fresh[cold]))))
            vocabulary = self._offer.popular.open().vocabulary
        n_recs[fresh] = lists.is_item.sum(axis=1)
        recs = self._to_arrow(users["user_id"].take(pa.array(fresh)), digests[fresh], lists, vocabulary)
        if self._previous is not None and len(carried):
            n_recs[carried] = self._previous.n_rows[found[carried]]
            recs = self._previous.join(recs, np.repeat(fresh, n_recs[fresh]), carried, found[carried])
        n_unknown = len(users["item_ids"].flatten()) - len(known.items)
        return ScoredChunk(recs, len(users), self._counts(users, is_known, n_recs, len(carried), n_unknown))

    def _best(self, histories: Histories, users: Longs, limits: UserLimits) -> RecLists:
        """Return the model's list for each of `users`, empty where it knows nothing of the history.

        Raises ModelError for scores that are not finite.
        """
        lists = RecLists.empty(len(users), self._top_k)
        known = np.flatnonzero(histories.lengths[users] > 0)
        lengths = np.minimum(histories.lengths[users[known]], self._shape.max_len)
        for batch in token_batches(lengths, self._batch_tokens, self._most_users):
            lists.put(known[batch], self._rank(histories, users[known[batch]], limits))
        # Rules score items themselves, by the weights.
        check_scores(lists.scores)
        return lists

    def _rank(self, histories: Histories, users: Longs, limits: UserLimits) -> Ranking:
        tokens = scoring_tokens(histories, users, self._shape)
        if self._ruled is not None:
            return self._ruled.rank(tokens, users, limits)
        return self._ranker.rank(tokens, limits.excluded(users), self._top_k)

    def _counts(
        self, users: pa.RecordBatch, is_known: Bools, n_recs: Longs, n_carried: int, n_unknown_items: int
    ) -> Counts:
        is_empty = n_recs == 0
        emptied = self._emptied_by(users.filter(pa.array(is_empty)), is_known[is_empty])
        return Counts(
            users_by_model=int((is_known & ~is_empty).sum()),
            users_by_popularity=int((~is_known & ~is_empty).sum()),
            users_skipped_all_seen=int(is_empty.sum()) - emptied.total(),
            emptied_by=emptied,
            users_with_fewer_than_top_k=int((~is_empty & (n_recs < self._top_k)).sum()),
            users_carried_over=n_carried,
            unknown_items_in_histories=n_unknown_items,
            rows=int(n_recs.sum()),
        )

    def _emptied_by(self, users: pa.RecordBatch, is_known: Bools) -> Counter[str]:
        """Count users, all without a list, by the rule that left them nothing."""
        counted: Counter[str] = Counter()
        if self._offer.rulebook.is_empty:
            return counted
        for which, is_cold in ((is_known, False), (~is_known, True)):
            if which.any():
                chosen = users.filter(pa.array(which))
                offer = self._offer.popular.open() if is_cold else self._offer
                seen = None if self._keep_seen else seen_by(chosen, offer.vocabulary)
                limits = limits_of(offer.rules, seen, chosen["user_id"])
                counted += emptied_by(offer.rules, limits, len(chosen))
        return counted

    def _to_arrow(self, user_ids: pa.Array, digests: Longs, lists: RecLists, vocabulary: Vocabulary) -> pa.RecordBatch:
        """Spell lists as rows of recs, their items those of a vocabulary."""
        n_users, top_k = lists.scores.shape
        # Where no item is left, PAD or MASK may stand: any item does instead, for the row is left out.
        items = pa.array(np.maximum(lists.items.ravel() - FIRST_ITEM, 0))
        columns = [
            user_ids.take(pa.array(np.repeat(np.arange(n_users), top_k))),
            pa.array(np.tile(np.arange(1, top_k + 1, dtype=np.int32), n_users)),
            vocabulary.item_ids.take(items),
            pa.array(lists.scores.ravel()),
            pa.array(SOURCES).take(pa.array(lists.sources.ravel())),
            pa.repeat(self._model.manifest.model_id, n_users * top_k),
            pa.array(np.repeat(digests, top_k)),
        ]
        if self._titles is not None:
            is_own = vocabulary is self._offer.vocabulary
            titles = self._titles if is_own else self._offer.titles(vocabulary)
            columns.append(titles.take(items))
        recs = pa.record_batch(columns, schema=self.schema)
        is_item = lists.is_item.ravel()
        return recs if is_item.all() else recs.filter(pa.array(is_item))
