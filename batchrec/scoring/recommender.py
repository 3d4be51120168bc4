"""A model that is opened once, to recommend after any history, with the titles of items and the reasons."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from batchrec.arrays import Bools, Floats
from batchrec.config import CatalogueConfig, ScoringConfig
from batchrec.errors import ConfigError
from batchrec.model.directory import load_model
from batchrec.model.ranker import Ranker
from batchrec.model.reasons import N_BECAUSE
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.known_ids import KnownIds
from batchrec.scoring.find_item import find_item
from batchrec.scoring.known_items import read_known_catalogue
from batchrec.scoring.leave_one_out import lost_scores
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import Scorer
from batchrec.sources.catalogue import Catalogue
from batchrec.tables.schemas import FIRST_ITEM, PAD, sequences_schema
from batchrec.tables.sequences_table import checked_batch


@dataclass(frozen=True)
class NamedItem:
    """An item and its title, empty without a catalogue."""

    item_id: int | str
    title: str


@dataclass(frozen=True)
class Because(NamedItem):
    """An item of the history, and the score that the recommendation loses without it."""

    lost_score: float


@dataclass(frozen=True)
class Recommendation:
    """An item at its rank, from 1; `source` as in the recs table.

    because: up to three items of the history, those without which the score falls most; empty if it was not asked for.
    """

    rank: int
    item_id: int | str
    title: str
    score: float
    source: str
    because: list[Because] = field(default_factory=list)


@dataclass(frozen=True)
class Recommender:
    """A model that is open. scorer: without rules. catalogue: the titles, None without any."""

    vocabulary: Vocabulary
    scorer: Scorer
    catalogue: Catalogue | None

    def find(self, name: str) -> str:
        """Return the id of the item that a title or an id names; without a catalogue every name is an id.

        Raises ConfigError for a title that is unknown or ambiguous.
        """
        return find_item(name, self.catalogue) if self.catalogue else name

    def knows(self, item_ids: Sequence[str]) -> Bools:
        """Return whether the model knows each item: (items,)."""
        is_known: Bools = self.vocabulary.indexes(pa.array(item_ids, pa.string())) != PAD
        return is_known

    def named(self, item_ids: Sequence[str]) -> list[NamedItem]:
        """Return items with their titles, the ids in the type of the model's."""
        ids = pa.array(item_ids, pa.string())
        titles = self.catalogue.values_of(ids).to_pylist() if self.catalogue else [None] * len(ids)
        is_integer = pa.types.is_integer(self.vocabulary.item_ids.type)
        return [
            # The id of an item that the model does not know may be any text.
            NamedItem(int(item) if is_integer and item.removeprefix("-").isdecimal() else item, title or "")
            for item, title in zip(item_ids, titles, strict=True)
        ]

    def history_of(self, item_ids: Sequence[str]) -> pa.RecordBatch:
        """Return a row of sequences: a user with the known ones of some items, all at one time."""
        indexes = self.vocabulary.indexes(pa.array(item_ids, pa.string()))
        known = self.vocabulary.item_ids.take(pa.array(indexes[indexes != PAD] - FIRST_ITEM))
        columns = {
            "user_id": pa.array([0]),
            "item_ids": pa.ListArray.from_arrays([0, len(known)], known),
            "timestamps": pa.array([[0] * len(known)], pa.list_(pa.int64())),
        }
        return checked_batch(pa.record_batch(columns), sequences_schema(pa.int64(), known.type), "items")

    def recommend(self, user: pa.RecordBatch) -> list[Recommendation]:
        """Recommend after a history: a row of sequences, whose user id may be of any type."""
        # Without rules the list does not depend on the id, and the scorer takes ids of one type.
        rows = self.scorer.score(user.set_column(0, "user_id", pa.array([0]))).recs.to_pylist()
        return [
            Recommendation(row["rank"], row["item_id"], row.get("title") or "", row["score"], row["source"])
            for row in rows
        ]

    def explained(self, user: pa.RecordBatch, rows: Sequence[Recommendation]) -> list[Recommendation]:
        """Return recommendations with their reasons; user: a row of sequences. The model knows an item of each."""
        items, lost = lost_scores(self.scorer, self.vocabulary, user, [row.item_id for row in rows])
        history = self.named([str(item) for item in items])
        return [replace(row, because=_because(history, scores)) for row, scores in zip(rows, lost.T, strict=True)]


def open_recommender(model: Path, config: CatalogueConfig, top_k: int) -> Recommender:
    """Open a model on the CPU.

    Raises ModelError for a broken model directory or one that knows no item of the catalogue, InputError for a
    catalogue that cannot be read, ConfigError for a top_k above the number of items.
    """
    loaded = load_model(model)
    vocabulary = loaded.vocabulary
    if top_k > len(vocabulary):
        raise ConfigError(f"--top-k {top_k}: the model knows {len(vocabulary)} items")
    catalogue = read_known_catalogue(config, vocabulary, model)
    scoring = ScoringConfig(top_k=top_k)
    offer = replace(read_offer(KnownIds(vocabulary, pa.int64()), scoring), catalogue=catalogue)
    scorer = Scorer(loaded, Ranker(loaded.graph, "cpu"), pa.int64(), scoring, offer)
    return Recommender(vocabulary, scorer, catalogue)


def _because(history: Sequence[NamedItem], lost: Floats) -> list[Because]:
    """Return the items without which the score of one recommendation falls most; lost: (items of the history,)."""
    order = np.argsort(-lost, kind="stable")[:N_BECAUSE]
    return [Because(**vars(history[place]), lost_score=float(lost[place])) for place in order if lost[place] > 0]
