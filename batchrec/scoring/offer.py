"""The offer of a night: the items that may be recommended, by the rules, the popular items, and the titles."""

from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa

from batchrec.arrays import Floats
from batchrec.config import ScoringConfig
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rule_tables import RuleTables
from batchrec.rules.rulebook import Rulebook, read_rule_tables, read_rules
from batchrec.scoring.cold_start import PopularItems
from batchrec.sources.catalogue import Catalogue, read_catalogue


@dataclass(frozen=True)
class Offer:
    """The offer; vocabulary: the model's, extended by pins that the model does not know; rules: over the vocabulary."""

    vocabulary: Vocabulary
    n_model_items: int
    rulebook: Rulebook
    rules: CompiledRules
    popular: PopularItems
    catalogue: Catalogue | None

    @property
    def item_offsets(self) -> Floats:
        """Numbers to add to the scores of the model's vocabulary: (size,) float32, -inf for an item nobody may get."""
        n_new = len(self.vocabulary) - self.n_model_items
        return self.rules.item_offsets[: self.vocabulary.size - n_new]

    def titles(self, vocabulary: Vocabulary) -> pa.Array:
        """Return the title of each item, null for an item without one; None without a catalogue."""
        return None if self.catalogue is None else self.catalogue.values_of(vocabulary.item_ids)

    def digests(self) -> dict[str, str | None]:
        """Return digests of the rules and of the titles, None without any."""
        titles = self.titles(self.vocabulary)
        # The rules are over indexes. The model_id says which items the model's indexes are; new ones are added here.
        new = self.vocabulary.item_ids[self.n_model_items :].to_pylist()
        return {
            "rules": None if self.rulebook.is_empty else sha256(repr((self.rules.digest(), new)).encode()).hexdigest(),
            "titles": None if titles is None else sha256(repr(titles.to_pylist()).encode()).hexdigest(),
        }


def read_offer(known: KnownIds, config: ScoringConfig, tables: RuleTables | None = None) -> Offer:
    """Read the files of the rules and the catalogue; known: the model's vocabulary, and the histories, if any.

    tables: the rule tables, if they have been read already.
    Raises InputError for a file that cannot be read or has invalid contents, ConfigError for a query that does not run.
    """
    tables = read_rule_tables(config) if tables is None else tables
    rulebook = read_rules(tables, config, config.top_k, known)
    offered = known.vocabulary if rulebook.pinned is None else known.vocabulary.extended(rulebook.pinned)
    return Offer(
        offered,
        len(known.vocabulary),
        rulebook,
        rulebook.compile(offered),
        PopularItems(known.sequences, config, rulebook, offered),
        read_catalogue(config, known.vocabulary.item_ids.type, config.night),
    )
