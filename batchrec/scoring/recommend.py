"""recommend: recommendations after a few items, each given by title or id."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from batchrec.config import RecommendConfig, ScoringConfig
from batchrec.errors import ConfigError
from batchrec.model.directory import load_model
from batchrec.model.ranker import Ranker
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.known_ids import KnownIds
from batchrec.scoring.find_item import find_item
from batchrec.scoring.known_items import check_knows_catalogue
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import Scorer
from batchrec.sources.catalogue import Catalogue, read_catalogue
from batchrec.tables.schemas import FIRST_ITEM, PAD, sequences_schema
from batchrec.tables.sequences_table import no_items


@dataclass(frozen=True)
class NamedItem:
    """An item and its title, empty without a catalogue."""

    item_id: int | str
    title: str


@dataclass(frozen=True)
class Recommendation:
    """An item at its rank, from 1; `source` as in the recs table."""

    rank: int
    item_id: int | str
    title: str
    score: float
    source: str


@dataclass(frozen=True)
class Recommendations:
    """The given history, oldest first, its items that the model does not know, and the recommendations."""

    history: list[NamedItem]
    unknown_to_model: list[NamedItem]
    recommendations: list[Recommendation]


def recommend(
    wanted: Sequence[str | int] | str, model: Path | str = Path("model"), config: RecommendConfig = RecommendConfig()
) -> Recommendations:
    """Recommend after a history of one or several items, each given by title or id, oldest first.

    Raises ConfigError for a title that is unknown or ambiguous or a top_k above the catalogue, ModelError for a broken
    model directory or one that knows no item of the catalogue, InputError for a catalogue that cannot be read.
    """
    names, model = [str(name) for name in ([wanted] if isinstance(wanted, str) else wanted)], Path(model)
    loaded = load_model(model)
    vocabulary = loaded.vocabulary
    if config.top_k > len(vocabulary):
        raise ConfigError(f"--top-k {config.top_k}: the model knows {len(vocabulary)} items")
    catalogue = read_catalogue(config, vocabulary.item_ids.type)
    if catalogue is not None:
        check_knows_catalogue(vocabulary, model, catalogue.item_ids, str(config.items))
    item_ids = pa.array([find_item(name, catalogue) if catalogue else name for name in names], pa.string())
    indexes = vocabulary.indexes(item_ids)
    named = [_named(item_id, vocabulary, catalogue) for item_id in item_ids.to_pylist()]
    if (indexes == PAD).all():
        example = f"{vocabulary.item_ids.type} like {vocabulary.item_ids[0].as_py()!r:.40}"
        raise ConfigError(f"the model knows none of {', '.join(names)}. Pass ids that are {example}, or --items FILE")
    known = vocabulary.item_ids.take(pa.array(indexes[indexes != PAD] - FIRST_ITEM))
    schema = sequences_schema(pa.int64(), known.type)
    history = pa.ListArray.from_arrays([0, len(known)], known)
    columns = {
        "user_id": pa.array([0]),
        "item_ids": history,
        "timestamps": pa.array([[0] * len(known)]),
        "also_seen": no_items(1, history.type),
    }
    user = pa.record_batch([columns[name] for name in schema.names], schema=schema)
    scoring = ScoringConfig(top_k=config.top_k)
    offer = replace(read_offer(KnownIds(vocabulary, pa.int64()), scoring), catalogue=catalogue)
    scorer = Scorer(loaded, Ranker(loaded.encoder, "cpu"), pa.int64(), scoring, offer)
    rows = scorer.score(user).recs.to_pylist()
    return Recommendations(
        history=named,
        unknown_to_model=[item for item, index in zip(named, indexes, strict=True) if index == PAD],
        recommendations=[
            Recommendation(row["rank"], row["item_id"], row.get("title") or "", row["score"], row["source"])
            for row in rows
        ],
    )


def _named(item_id: str, vocabulary: Vocabulary, catalogue: Catalogue | None) -> NamedItem:
    title = catalogue.title_of(item_id) if catalogue else ""
    # The id of an item that the model does not know may be any text.
    is_integer = pa.types.is_integer(vocabulary.item_ids.type) and item_id.removeprefix("-").isdecimal()
    return NamedItem(int(item_id) if is_integer else item_id, title)
