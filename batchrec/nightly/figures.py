"""The figures that gates look at: a model's on tonight's held-out items, and the finished table's own, by SQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.config import ScoringConfig, TrainingConfig, end_of_day
from batchrec.errors import InputError, one_line
from batchrec.model.directory import load_model
from batchrec.model.metrics import ndcg
from batchrec.model.ranker import Ranker
from batchrec.nightly.report import ModelFigures
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rulebook import read_rule_tables
from batchrec.rules.table_check import BrokenRule, FinishedTable, check_rules
from batchrec.scoring.known_items import check_knows
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import Scorer
from batchrec.scoring.user_list import read_user_list
from batchrec.tables.ids import BLANKS
from batchrec.tables.log_end import ahead_from, log_end
from batchrec.tables.queries import connect, literal, materialize, select
from batchrec.tables.schemas import PAD
from batchrec.tables.sealed_parquet import open_parquet
from batchrec.tables.sequences_table import Sequences, open_sequences

# Of the newest events, of which unknown items are counted.
_NEWEST_SHARE = 0.05
_K = 10


@dataclass(frozen=True)
class HistoriesFigures:
    """What histories hold.

    newest: the moment (UTC) of the newest event up to the end of the run date; of a later one only if there is none.
    new_id_types: columns of ids that had another type on the last night.
    """

    newest: datetime
    new_id_types: int


def measure_histories(sequences: Path, run_date: date, previous: Path | None) -> HistoriesFigures:
    """Measure histories on a night and, if there is one, against an earlier recs table.

    Raises InputError if the newest event is of no year of the calendar.
    """
    with connect(sequences.parent) as con:
        found = select(con, "nightly/newest_event", path=literal(sequences), until=end_of_day(run_date))
        before, newest = found.fetchall()[0]
    schema = pq.read_schema(sequences)
    types = {"user_id": schema.field("user_id").type, "item_id": schema.field("item_ids").type.value_type}
    earlier = None if previous is None else pq.read_schema(previous)
    return HistoriesFigures(
        newest=_as_time(newest if before is None else before, sequences),
        new_id_types=sum(earlier is not None and earlier.field(name).type != types[name] for name in types),
    )


def _as_time(moment: int, sequences: Path) -> datetime:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment)
    except OverflowError as error:
        raise InputError(
            f"{sequences}: the newest event is {moment} seconds after 1970; expected one of the years 1 to 9999"
        ) from error


@dataclass(frozen=True)
class HeldOutItems:
    """Histories without their last item, which is held out, and the items of the newest events before `until`."""

    con: duckdb.DuckDBPyConnection
    table: Sequences
    until: int
    popularity_ndcg: float

    def measure(self, model: Path, scoring: ScoringConfig) -> ModelFigures:
        """Rank each user's held-out item by a model, among all that it knows and the user has not seen.

        Raises ModelError for a damaged model directory, or one that knows none of the histories' items or has ids of
        another type, and DeviceError where the device is not there.
        """
        loaded = load_model(model)
        check_knows(loaded.vocabulary, model, self.table)
        ranker = Ranker(loaded.encoder, scoring.device, scoring.precision)
        config = ScoringConfig(top_k=min(_K, len(loaded.vocabulary)))
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
        return ModelFigures(
            model_id=loaded.manifest.model_id,
            ndcg_at_10=_ndcg(select(self.con, "nightly/model_ranks")),
            popularity_ndcg_at_10=self.popularity_ndcg,
            unknown_share=float(n_events[is_unknown].sum() / n_events.sum()),
        )


@contextmanager
def held_out_items(sequences: Path, training: TrainingConfig, run_date: date | None = None) -> Iterator[HeldOutItems]:
    """Hold out what a training with these options holds out tonight; its clock is today's, whatever the run date."""
    path = literal(sequences)
    with connect(sequences.parent) as con:
        until = log_end(con, sequences, ahead_from())
        materialize(con, "nightly/held_out", path=path, seed=training.seed, most=training.validation_users, until=until)
        popularity = _ndcg(select(con, "nightly/popularity_ranks", path=path))
        until = log_end(con, sequences, ahead_from(run_date))
        yield HeldOutItems(con, open_sequences(sequences), until, popularity)


def _ndcg(ranks: duckdb.DuckDBPyRelation) -> float:
    """Average over the held-out items; a rank that is null is that of an item not found."""
    found = np.ma.filled(ranks.fetchnumpy()["rank"].astype(np.int64), _K + 1)
    return ndcg(found, _K) if len(found) else 0.0


@dataclass(frozen=True)
class TableFigures:
    """What a finished recs table holds.

    faults: how many of each thing that must not be there. broken_rules: each rule that is given, and how many rows
    break it. overlap: None if new.
    """

    faults: dict[str, int]
    users: int
    users_with_full_list: int
    items: int
    top_items_share: float
    overlap: float | None
    histories: int
    broken_rules: list[BrokenRule]


def measure_table(recs: Path, sequences: Path, previous: Path | None, scoring: ScoringConfig) -> TableFigures:
    """Measure a recs table against the histories and, if there is one, an earlier table.

    Users without a history do not count, but for those that --users lists. The rule tables are read again: nothing of
    the scorer's is believed, and one that was replaced while the night was made must hold.
    Raises InputError if a table has changed since it was written: SQL would not see it.
    """
    for table in [recs] if previous is None else [recs, previous]:
        try:
            open_parquet(table)
        except OSError as error:
            raise InputError(f"{table}: cannot be read: {one_line(error)}. Start batchrec run again") from error
    rules, listed = read_rule_tables(scoring), None
    if scoring.users is not None and rules:
        user_type = pq.read_schema(recs).field("user_id").type
        listed = read_user_list(scoring.users, user_type, scoring.night, sequences)
    broken = check_rules(FinishedTable(recs, sequences, listed), rules, scoring)
    with connect(recs.parent) as con:
        faults = select(
            con,
            "nightly/recs_faults",
            recs=literal(recs),
            sequences=literal(sequences),
            blanks=BLANKS,
            keep_seen=scoring.keep_seen,
        )
        found = dict(zip(faults.columns, map(int, faults.fetchall()[0]), strict=True))
        reach = select(
            con,
            "nightly/recs_reach",
            recs=literal(recs),
            sequences=literal(sequences),
            k=scoring.top_k,
            of_histories=scoring.users is None,
        )
        users, n_full, n_items, top_share, n_histories = reach.fetchall()[0]
        overlap = None
        if previous is not None:
            compared = select(
                con, "nightly/recs_overlap", recs=literal(recs), previous=literal(previous), blanks=BLANKS
            )
            overlap = compared.fetchall()[0][0]
        return TableFigures(found, users, n_full, n_items, top_share or 0.0, overlap, n_histories, broken)
