"""The inputs of a scoring: read and checked once, before the first user is scored."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batchrec.config import ScoringConfig
from batchrec.errors import ConfigError
from batchrec.model.directory import Model, load_model, model_files
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rule_tables import RuleTables
from batchrec.rules.rulebook import read_rule_tables
from batchrec.scoring.chunks import read_chunks
from batchrec.scoring.known_items import check_knows
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import ScorerParts
from batchrec.scoring.user_list import read_user_list, with_users
from batchrec.sources import local_path_of
from batchrec.tables.queries import one_database
from batchrec.tables.sequences_table import Sequences, open_sequences


@dataclass(frozen=True)
class ScoringInputs:
    """The inputs of a scoring. parts: all that a worker needs to score, wherever it runs. listed: the users of --users.

    rules: the rule tables as they were read.
    """

    table: Sequences
    parts: ScorerParts
    rules: RuleTables
    listed: pa.Array | None

    @property
    def n_users(self) -> int:
        """How many users are scored, not counting users of --segments without a history."""
        return self.table.n_users if self.listed is None else len(self.listed)

    @property
    def rule_rows(self) -> dict[str, int]:
        """How many rows each rule table has, by its option, and the list of --users, each user once."""
        rows = {option: len(table.rows) for option, table in self.rules.items()}
        return rows if self.listed is None else {**rows, "--users": len(self.listed)}

    def chunks(self, device: str) -> Iterator[pa.RecordBatch]:
        """Yield the users to score as sequences batches: those of the table in its order, then users without a row.

        device: cpu or cuda, for the size of the chunks.
        """
        chunks = read_chunks(self.table, self.parts.config, device)
        segments = self.parts.offer.rulebook.segments
        if self.listed is not None:
            return with_users(self.listed, chunks, self.table, only=True)
        if segments is not None:
            return with_users(segments.user_ids, chunks, self.table, only=False)
        return chunks


def input_files(sequences: Path, model: Path, config: ScoringConfig) -> list[str | Path]:
    """Return the local files that a scoring reads, which its table must not replace."""
    return [sequences, *model_files(model), *map(local_path_of, config.files.values())]


def read_inputs(sequences: Path, model: Path, config: ScoringConfig) -> ScoringInputs:
    """Open the sequences, load the model and read all tables that the config names.

    Raises InputError, ModelError or ConfigError for an invalid input, model or option.
    """
    loaded = _load_model(model, config.top_k)
    with one_database():
        table = open_sequences(sequences)
        check_knows(loaded.vocabulary, model, table)
        listed = read_user_list(config.users, table.user_type, config.night, sequences) if config.users else None
        known = KnownIds(loaded.vocabulary, table.user_type, sequences, listed, config.allow_empty_rules)
        known.warn_of_listed("--users")
        rules = read_rule_tables(config)
        offer = read_offer(known, config, rules)
    if offer.catalogue is not None:
        offer.catalogue.warn_of_untitled(loaded.vocabulary.item_ids, offer.titles(loaded.vocabulary), config.items)
    return ScoringInputs(table, ScorerParts(loaded, table.user_type, config, offer), rules, listed)


def _load_model(model: Path, top_k: int) -> Model:
    """Load a model. Raises ConfigError if it knows fewer than top_k items."""
    loaded = load_model(model)
    n_items = len(loaded.vocabulary)
    if top_k > n_items:
        raise ConfigError(f"--top-k {top_k}: the model knows {n_items} items. Pass {n_items} or less")
    return loaded
