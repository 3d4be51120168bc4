"""recommend: recommendations after a few items, each given by title or id, or after the history of a user."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from batchrec.arrays import Floats
from batchrec.config import RecommendConfig, ScoringConfig
from batchrec.config.arguments import checked
from batchrec.errors import ConfigError
from batchrec.model.directory import load_model
from batchrec.model.ranker import Ranker
from batchrec.model.reasons import N_BECAUSE
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.known_ids import KnownIds
from batchrec.scoring.find_item import find_item
from batchrec.scoring.known_items import check_knows_catalogue, none_known
from batchrec.scoring.leave_one_out import lost_scores
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import Scorer
from batchrec.sources.catalogue import Catalogue, read_catalogue
from batchrec.tables.schemas import FIRST_ITEM, PAD, sequences_schema
from batchrec.tables.sequences_table import no_items, open_sequences, read_user


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

    because: up to three items of the history, those without which the score falls most; empty unless config.why.
    """

    rank: int
    item_id: int | str
    title: str
    score: float
    source: str
    because: list[Because] = field(default_factory=list)


@dataclass(frozen=True)
class Recommendations:
    """The given history, oldest first, its items that the model does not know, and the recommendations."""

    history: list[NamedItem]
    unknown_to_model: list[NamedItem]
    recommendations: list[Recommendation]


@checked
def recommend(
    wanted: Sequence[str | int] | str = (),
    model: Path | str = Path("model"),
    config: RecommendConfig = RecommendConfig(),
    sequences: Path | str = Path("sequences.parquet"),
) -> Recommendations:
    """Recommend after a history: items given by title or id, oldest first, or what config.user has in `sequences`.

    Raises ConfigError for a title that is unknown or ambiguous, an unknown user, both or neither of them, or a top_k
    above the catalogue; ModelError for a broken model directory or one that knows no item of the catalogue; InputError
    for a catalogue or sequences that cannot be read.
    """
    names, model = [str(name) for name in ([wanted] if isinstance(wanted, str) else wanted)], Path(model)
    if bool(names) == (config.user is not None):
        raise ConfigError("expected titles or ids of items, or --user ID, and not both")
    loaded = load_model(model)
    vocabulary = loaded.vocabulary
    if config.top_k > len(vocabulary):
        raise ConfigError(f"--top-k {config.top_k}: the model knows {len(vocabulary)} items")
    catalogue = read_catalogue(config, vocabulary.item_ids.type)
    if catalogue is not None:
        check_knows_catalogue(vocabulary, model, catalogue.item_ids, str(config.items))
    if config.user is None:
        item_ids = [find_item(name, catalogue) if catalogue else name for name in names]
        user = _user_with(pa.array(item_ids, pa.string()), vocabulary)
    else:
        user = read_user(open_sequences(Path(sequences)), str(config.user))
        item_ids = [str(item_id) for item_id in user["item_ids"][0].as_py()]
    name = partial(_named, vocabulary=vocabulary, catalogue=catalogue)
    named = [name(item_id) for item_id in item_ids]
    is_known = vocabulary.indexes(pa.array(item_ids, pa.string())) != PAD
    if not is_known.any():
        raise none_known(vocabulary, names or item_ids[-10:], ", or --items FILE")
    scoring = ScoringConfig(top_k=config.top_k)
    user_type = user.schema.field("user_id").type
    offer = replace(read_offer(KnownIds(vocabulary, user_type), scoring), catalogue=catalogue)
    scorer = Scorer(loaded, Ranker(loaded.encoder, "cpu"), user_type, scoring, offer)
    rows = scorer.score(user).recs.to_pylist()
    because: list[list[Because]] = [[] for _ in rows]
    if config.why:
        items, lost = lost_scores(scorer, vocabulary, user, [row["item_id"] for row in rows])
        without = [name(str(item)) for item in items]
        because = [_because(without, scores) for scores in lost.T]
    return Recommendations(
        history=named,
        unknown_to_model=[item for item, known in zip(named, is_known, strict=True) if not known],
        recommendations=[
            Recommendation(row["rank"], row["item_id"], row.get("title") or "", row["score"], row["source"], reasons)
            for row, reasons in zip(rows, because, strict=True)
        ],
    )


def _user_with(item_ids: pa.Array, vocabulary: Vocabulary) -> pa.RecordBatch:
    """Return a row of sequences: a user with the known ones of some items, all at one time."""
    indexes = vocabulary.indexes(item_ids)
    known = vocabulary.item_ids.take(pa.array(indexes[indexes != PAD] - FIRST_ITEM))
    schema = sequences_schema(pa.int64(), known.type)
    history = pa.ListArray.from_arrays([0, len(known)], known)
    columns = {
        "user_id": pa.array([0]),
        "item_ids": history,
        "timestamps": pa.array([[0] * len(known)]),
        "also_seen": no_items(1, history.type),
    }
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _because(history: Sequence[NamedItem], lost: Floats) -> list[Because]:
    """Return the items without which the score of one recommendation falls most; lost: (items of the history,)."""
    order = np.argsort(-lost, kind="stable")[:N_BECAUSE]
    return [Because(**vars(history[place]), lost_score=float(lost[place])) for place in order if lost[place] > 0]


def _named(item_id: str, vocabulary: Vocabulary, catalogue: Catalogue | None) -> NamedItem:
    title = catalogue.title_of(item_id) if catalogue else ""
    # The id of an item that the model does not know may be any text.
    is_integer = pa.types.is_integer(vocabulary.item_ids.type) and item_id.removeprefix("-").isdecimal()
    return NamedItem(int(item_id) if is_integer else item_id, title)
