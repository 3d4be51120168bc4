"""The model gate: a model must rank tonight's held-out items as well as popularity and the model in use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from batchrec.arrays import Doubles
from batchrec.config import RunConfig, ScoringConfig, TrainingConfig
from batchrec.model.directory import load_model
from batchrec.model.metrics import user_ndcg
from batchrec.model.ranker import Ranker
from batchrec.nightly.report import Check, ModelFigures
from batchrec.rules.known_ids import KnownIds
from batchrec.scoring.known_items import check_knows
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import Scorer
from batchrec.tables.log_end import ahead_from, log_end
from batchrec.tables.queries import connect, literal, materialize, select
from batchrec.tables.schemas import PAD
from batchrec.tables.sequences_table import Sequences, open_sequences
from batchrec.tables.validation_cut import validation_cut

# The share of all events that counts as newest, for the share of unknown items among them.
_NEWEST_SHARE = 0.05
_K = 10


@dataclass(frozen=True)
class MeasuredModel:
    """The figures of a model, and its NDCG@10 of each held-out user, (users,), for the comparison with a new model."""

    figures: ModelFigures
    ndcg: Doubles


@dataclass(frozen=True)
class HeldOutItems:
    """Tonight's held-out items: some users' last item, or what they took after a point in time.

    until: the time before which events count. popularity: NDCG@10 of each user, (users,), by popularity. keep_seen:
    whether items of the history may be recommended.
    """

    con: duckdb.DuckDBPyConnection
    table: Sequences
    until: int
    popularity: Doubles
    keep_seen: bool

    def measure(self, model: Path, scoring: ScoringConfig, in_use: MeasuredModel | None = None) -> MeasuredModel:
        """Rank each user's held-out items among all items that the model knows and the user may get.

        in_use: the model in use, measured before a new one; None without any. Raises ModelError if the model directory
        is damaged, if the model knows none of the histories' items, or if its ids have another type. Raises DeviceError
        if the device is missing.
        """
        loaded = load_model(model)
        check_knows(loaded.vocabulary, model, self.table)
        ranker = Ranker(loaded.graph, scoring.device, scoring.precision)
        config = ScoringConfig(top_k=min(_K, len(loaded.vocabulary)), keep_seen=self.keep_seen)
        scorer = Scorer(
            loaded,
            ranker,
            self.table.user_type,
            config,
            read_offer(KnownIds(loaded.vocabulary, self.table.user_type), config),
        )
        histories = self.con.table("held_out").to_arrow_table().combine_chunks()
        chunks = [scorer.score(batch).recs for batch in histories.to_batches()]
        self.con.from_arrow(pa.Table.from_batches(chunks, scorer.schema)).create_view("recs", replace=True)
        path, until = literal(self.table.path), self.until
        newest = select(self.con, "nightly/newest_events", path=path, share=_NEWEST_SHARE, until=until)
        counted = newest.to_arrow_table().combine_chunks()
        n_events = counted["n_events"].to_numpy()
        is_unknown = loaded.vocabulary.indexes(counted["item_id"].combine_chunks()) == PAD
        ndcg = _user_ndcg(select(self.con, "nightly/model_ranks"))
        figures = ModelFigures(
            model_id=loaded.manifest.model_id,
            ndcg_at_10=_mean(ndcg),
            popularity_ndcg_at_10=_mean(self.popularity),
            unknown_share=float(n_events[is_unknown].sum() / n_events.sum()),
            popularity_margin=_margin(ndcg - self.popularity),
            in_use_margin=_margin(ndcg - (ndcg if in_use is None else in_use.ndcg)),
        )
        return MeasuredModel(figures, ndcg)


@contextmanager
def held_out_items(sequences: Path, training: TrainingConfig, run_date: date | None = None) -> Iterator[HeldOutItems]:
    """Hold out the items that a training with these options holds out.

    Like training, this goes by today's clock. run_date: only events up to its end are among the newest events.
    """
    keep_seen = training.repeat_items
    with connect(sequences.parent) as con:
        until = log_end(con, sequences, ahead_from())
        rule = {
            "path": literal(sequences),
            "cut": validation_cut(con, sequences, until, training),
            "keep_seen": keep_seen,
        }
        users = {"seed": training.seed, "max_users": training.validation_users, "until": until}
        materialize(con, "nightly/held_out", **rule, **users)
        popularity = _user_ndcg(select(con, "nightly/popularity_ranks", **rule))
        until = log_end(con, sequences, ahead_from(run_date))
        yield HeldOutItems(con, open_sequences(sequences), until, popularity, keep_seen)


def _user_ndcg(ranks: duckdb.DuckDBPyRelation) -> Doubles:
    """Return NDCG@10 of each user by number, (users,). A null rank means that the item is not in the list."""
    columns = ranks.fetchnumpy()
    users = columns["number"].astype(np.int64)
    filled = np.ma.filled(columns["rank"].astype(np.int64), _K + 1)
    return user_ndcg(filled, users, np.bincount(users), _K)


def _mean(ndcg: Doubles) -> float:
    return float(ndcg.mean()) if len(ndcg) else 0.0


def _margin(differences: Doubles) -> float:
    """Return two standard errors of the mean of the users' differences, or 1, the greatest one, for a single user."""
    return float(2 * differences.std(ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else 1.0


def model_checks(tonight: ModelFigures, in_use: ModelFigures | None, config: RunConfig) -> list[Check]:
    """Check tonight's model against popularity and, if it is a new one, against the model in use.

    The bounds allow for chance: a small log has few users with held-out items.
    """
    checks = [Check("model", "NDCG@10", tonight.ndcg_at_10, minimum=tonight.minimum_ndcg)]
    if in_use is not None and in_use.model_id != tonight.model_id:
        minimum = max(0.0, (1 - config.gate_max_ndcg_drop) * in_use.ndcg_at_10 - tonight.in_use_margin)
        checks.append(Check("model", "NDCG@10 against the model in use", tonight.ndcg_at_10, minimum=minimum))
    return checks
