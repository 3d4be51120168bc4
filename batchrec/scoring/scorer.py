"""The Scorer maps a batch of histories to a batch of recommendations, Arrow to Arrow, and keeps no state in between."""

import logging
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from batchrec.arrays import Floats, Ints, Longs
from batchrec.config import ScoringConfig
from batchrec.model.batching import Histories, SeenPairs, scoring_tokens, token_batches
from batchrec.model.blend import NO_HABITS, ScoredPairs, habits
from batchrec.model.directory import Model
from batchrec.model.ranker import Ranker, Ranking, check_scores
from batchrec.model.reasons import Explainer, Reasons
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.pools import RecLists
from batchrec.rules.ruled_ranker import RuledRanker
from batchrec.scoring.chunk_checkpoints import ChunkCheckpoint
from batchrec.scoring.chunks import CHUNK_SIZE
from batchrec.scoring.empty_lists import emptied_by
from batchrec.scoring.indexed_users import IndexedUsers, index_users
from batchrec.scoring.offer import Offer
from batchrec.scoring.previous_table import PreviousRecs, open_previous
from batchrec.scoring.recs_columns import RecsColumns
from batchrec.system.versions import version_of
from batchrec.tables.schemas import WEIGHED_COLUMNS, sequences_schema
from batchrec.tables.sequences_table import checked_batch

_log = logging.getLogger(__name__)

# Tokens in one run of the model, and scores of items: few on a CPU, to fit its cache; a GPU needs more work at a time.
_BATCH_TOKENS = {"cpu": 1 << 11, "cuda": 1 << 18}
_BATCH_SCORES = {"cpu": 1 << 22, "cuda": 1 << 27}
# Every run reads all embeddings. So one has this many users if the catalogue is wide, up to so many scores.
_WIDE_BATCH_USERS = {"cpu": 16, "cuda": 512}
_WIDE_BATCH_SCORES = {"cpu": 1 << 26, "cuda": 1 << 30}


@dataclass(frozen=True)
class Counts:
    """Users by where their recommendations come from; each user is in one of the first four.

    emptied_by: users without a list, per rule (its option) that left them nothing.
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
    """Recommendations for a batch of users, by the schema of recs, and their counts for the report."""

    recs: pa.RecordBatch
    n_users: int
    counts: Counts


@dataclass(frozen=True)
class ScorerParts:
    """The parts of a Scorer; scoring/inputs.py reads them.

    They can be pickled: a worker on another machine reads no file, except config.previous. Pickling counts the popular
    items, which costs a scan of the sequences.
    """

    model: Model
    user_type: pa.DataType
    config: ScoringConfig
    offer: Offer


def open_scorer(parts: ScorerParts) -> "Scorer":
    """Return a Scorer on the device of the config. It holds an onnxruntime session: open one per process.

    Raises DeviceError if the device is cuda and no GPU works, ModelError if the graph is broken, InputError if
    config.previous cannot be read.
    """
    model, config, offer = parts.model, parts.config, parts.offer
    offsets = offer.item_offsets
    ranker = Ranker(
        model.graph,
        config.device,
        config.precision,
        offsets,
        keeps_states=config.explain,
        scores_pairs=_needs_rules(model, offer),
    )
    return Scorer(model, ranker, parts.user_type, config, offer)


def _needs_rules(model: Model, offer: Offer) -> bool:
    """Return whether lists are more than the best items of the graph."""
    return offer.rules.choose or offer.vocabulary.size != model.vocabulary.size


class Scorer:
    """Recommends to a batch of users; `score` may be called by several threads at the same time."""

    def __init__(
        self,
        model: Model,
        ranker: Ranker,
        user_type: pa.DataType,
        config: ScoringConfig,
        offer: Offer,
    ) -> None:
        self.device = ranker.device
        self._ranker = ranker
        self._id_types = user_type, model.vocabulary.item_ids.type
        self._offer = offer
        is_ruled = _needs_rules(model, offer)
        self._ruled = RuledRanker(ranker, model, offer.rules, config.top_k) if is_ruled else None
        self._explainer = Explainer(model.weights, model.blend) if config.explain else None
        self._shape, self._blend, self._needs_days = model.manifest.shape, model.blend, model.needs_days
        self._top_k = config.top_k
        self._seen_from = config.seen_from
        max_tokens, self._max_users = batch_limits(ranker.device, model.vocabulary.size)
        self._batch_tokens = config.batch_tokens or max_tokens
        made_by = {
            "model_id": model.manifest.model_id,
            "top_k": config.top_k,
            "seen": config.seen_policy,
            "precision": config.precision,
            "device": ranker.device,
            "batchrec": version_of("batchrec"),
            "onnxruntime": ort.__version__,
            **offer.digests(),
            **({"explain": True} if config.explain else {}),
        }
        self._columns = RecsColumns(model, user_type, offer, made_by, with_reasons=config.explain)
        self._previous = _open_previous(config, self.schema)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the recs."""
        return self._columns.schema

    @property
    def carries_over(self) -> bool:
        """Whether users may be carried over from a previous table."""
        return self._previous is not None

    def recs(self, sequences: pa.Table) -> pa.Table:
        """Recommend to the users of a table with the columns of sequences: what engines run in their workers.

        Returns a table by `schema`: users in the order of the sequences, best item first. Raises InputError for
        columns, nulls or histories that break the contract of sequences.
        """
        chunks = sequences.to_batches(max_chunksize=CHUNK_SIZE[self.device])
        weighed = set(sequences.column_names) & set(WEIGHED_COLUMNS)
        schema = sequences_schema(*self._id_types, weighed)
        checked = (checked_batch(chunk, schema, "the sequences") for chunk in chunks)
        return pa.Table.from_batches([self.score(chunk).recs for chunk in checked], self.schema)

    def score(self, batch: pa.RecordBatch, checkpoint: ChunkCheckpoint | None = None) -> ScoredChunk:
        """Recommend to the users of a sequences batch: columns user_id and those that `seen_items` takes.

        checkpoint: of the batch; None to rank without one.
        """
        users = index_users(batch, self._offer, self._seen_from, with_days=self._needs_days)
        places = self._places_in_previous(users)
        fresh = np.flatnonzero(places < 0)
        lists = self._lists_by_model(users, fresh, checkpoint)
        vocabulary = self._fill_cold(lists, users, fresh)
        recs = self._columns.rows(users.user_ids.take(pa.array(fresh)), users.digests[fresh], lists, vocabulary)
        n_recs = np.zeros(len(batch), np.int64)
        n_recs[fresh] = lists.is_item.sum(axis=1)
        if self._previous is not None and len(fresh) < len(batch):
            recs, n_recs = self._previous.merge(recs, n_recs, places)
        return ScoredChunk(recs, len(batch), self._counts(users, n_recs, len(batch) - len(fresh)))

    def scores(self, batch: pa.RecordBatch, items: Longs) -> Floats:
        """Return the model's scores of some items, seen or not and without rules: (users, items) float32.

        batch: of sequences, as `score` takes it; the scores of users without a known item mean nothing. items: indexes.
        """
        histories = index_users(batch, self._offer, self._seen_from, with_days=self._needs_days).histories
        scores = np.zeros((len(batch), len(items)), np.float32)
        lengths = np.minimum(histories.lengths, self._shape.max_len)
        for rows in token_batches(lengths, self._batch_tokens, self._max_users):
            asked = SeenPairs(np.repeat(np.arange(len(rows)), len(items)), np.tile(items, len(rows)))
            tokens, added = self._tokens_and_habits(histories, rows)
            scores[rows] = self._ranker.score(tokens, asked, added)[0].reshape(len(rows), -1)
        return scores

    def _places_in_previous(self, users: IndexedUsers) -> Longs:
        """Return the places in the previous table of users that are carried over: (users,) int64, -1 for all others.

        Cold users are not: what is popular changes every night.
        """
        if self._previous is None:
            return np.full(len(users.batch), -1)
        return np.where(users.is_known, self._previous.find(users.user_ids, users.digests), -1)

    def _lists_by_model(self, users: IndexedUsers, fresh: Longs, checkpoint: ChunkCheckpoint | None) -> RecLists:
        """Return the lists of the fresh users, from the checkpoint if it has them; those of cold users are empty."""
        if checkpoint is None:
            return self._rank(users, fresh)
        is_fresh = np.zeros(len(users.batch), bool)
        is_fresh[fresh] = True
        return checkpoint.read_or_rank(users.user_ids, users.digests, is_fresh, lambda: self._rank(users, fresh))

    def _rank(self, users: IndexedUsers, fresh: Longs) -> RecLists:
        """Rank by the model, in batches of users with similar lengths.

        Raises ModelError for scores that are not finite.
        """
        lists = RecLists.empty(len(fresh), self._top_k)
        if self._explainer is not None:
            lists = replace(lists, reasons=Reasons.empty(len(fresh), self._top_k))
        known = np.flatnonzero(users.is_known[fresh])
        lengths = np.minimum(users.histories.lengths[fresh[known]], self._shape.max_len)
        for batch in token_batches(lengths, self._batch_tokens, self._max_users):
            self._rank_batch(lists, known[batch], users, fresh[known[batch]])
        # The Ranker checks what the graph returns, this what the rules make of it.
        check_scores(lists.scores)
        return lists

    def _rank_batch(self, lists: RecLists, places: Longs, users: IndexedUsers, rows: Longs) -> None:
        """Set some lists; places: those of the lists; rows: those of the users, in the same order."""
        tokens, added = self._tokens_and_habits(users.histories, rows)
        if self._ruled is not None:
            ranking: Ranking = self._ruled.rank(tokens, rows, users.limits, added)
        else:
            ranking = self._ranker.rank(tokens, users.limits.excluded(rows), self._top_k, added)
        lists.put(places, ranking)
        if self._explainer is not None:
            assert lists.reasons is not None  # noqa: S101 - made with the lists
            assert ranking.states is not None  # noqa: S101 - this Ranker keeps them
            lists.reasons.put(places, self._explainer.explain(tokens, ranking.states, ranking.items, added))

    def _tokens_and_habits(self, histories: Histories, rows: Longs) -> tuple[Ints, ScoredPairs]:
        added = NO_HABITS if self._blend is None else habits(self._blend, histories, rows)
        return scoring_tokens(histories, rows, self._shape), added

    def _fill_cold(self, lists: RecLists, users: IndexedUsers, fresh: Longs) -> Vocabulary:
        """Set the lists of cold users to popular items, and return the vocabulary of the items in all lists."""
        cold = np.flatnonzero(~users.is_known[fresh])
        if len(cold) == 0:
            return self._offer.vocabulary
        lists.put(cold, self._offer.popular.lists(users.batch.take(pa.array(fresh[cold]))))
        return self._offer.popular.open().vocabulary

    def _counts(self, users: IndexedUsers, n_recs: Longs, n_carried: int) -> Counts:
        is_empty, is_known = n_recs == 0, users.is_known
        emptied: Counter[str] = Counter()
        if not self._offer.rulebook.is_empty:
            emptied += emptied_by(self._offer.rules, users.limits, np.flatnonzero(is_empty & is_known))
            emptied += self._offer.popular.emptied_by(users.batch.filter(pa.array(is_empty & ~is_known)))
        return Counts(
            users_by_model=int((is_known & ~is_empty).sum()),
            users_by_popularity=int((~is_known & ~is_empty).sum()),
            users_skipped_all_seen=int(is_empty.sum()) - emptied.total(),
            emptied_by=emptied,
            users_with_fewer_than_top_k=int((~is_empty & (n_recs < self._top_k)).sum()),
            users_carried_over=n_carried,
            unknown_items_in_histories=users.n_unknown_items,
            rows=int(n_recs.sum()),
        )


def batch_limits(device: str, vocabulary_size: int) -> tuple[int, int]:
    """Return the maximum numbers of tokens and of users in one run of the model."""
    wide = min(_WIDE_BATCH_USERS[device], _WIDE_BATCH_SCORES[device] // vocabulary_size)
    return _BATCH_TOKENS[device], max(1, _BATCH_SCORES[device] // vocabulary_size, wide)


def _open_previous(config: ScoringConfig, schema: pa.Schema) -> PreviousRecs | None:
    if config.previous is None:
        return None
    if config.precision == "int8":
        _log.info("int8: a list depends on the other users in its batch, so all users are scored")
        return None
    return open_previous(Path(config.previous), schema)
