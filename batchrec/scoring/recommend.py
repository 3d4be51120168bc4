"""recommend: recommendations after a few items, each given by title or id, or after the history of a user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchrec.config import RecommendConfig
from batchrec.config.arguments import checked
from batchrec.errors import ConfigError
from batchrec.scoring.known_items import none_known
from batchrec.scoring.recommender import NamedItem, Recommendation, open_recommender
from batchrec.tables.sequences_table import open_sequences, read_user


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
    names = [str(name) for name in ([wanted] if isinstance(wanted, str) else wanted)]
    if bool(names) == (config.user is not None):
        raise ConfigError("expected titles or ids of items, or --user ID, and not both")
    recommender = open_recommender(Path(model), config, config.top_k)
    if config.user is None:
        item_ids = [recommender.find(name) for name in names]
        user = recommender.history_of(item_ids)
    else:
        user = read_user(open_sequences(Path(sequences)), str(config.user))
        item_ids = [str(item_id) for item_id in user["item_ids"][0].as_py()]
    is_known = recommender.knows(item_ids)
    if not is_known.any():
        raise none_known(recommender.vocabulary, names or item_ids[-10:], ", or --items FILE")
    named, rows = recommender.named(item_ids), recommender.recommend(user)
    return Recommendations(
        history=named,
        unknown_to_model=[item for item, known in zip(named, is_known, strict=True) if not known],
        recommendations=recommender.explained(user, rows) if config.why else rows,
    )
