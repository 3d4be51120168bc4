"""The steps of every rule: read its tables, look up their ids, and compile it for a vocabulary.

A new rule is a subclass of Rule in a module of its own and a line in rulebook.RULES. CONTRIBUTING has the other files.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from batchrec.config import RulesConfig
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rule_tables import RuleTable, RuleTables
from batchrec.rules.segments import Segments


@dataclass(frozen=True)
class RuleInputs:
    """The inputs of a rule: the tables of all given options, and the ids that the tables are checked against.

    segments: which user is in which segment; None without --segments.
    """

    tables: RuleTables
    config: RulesConfig
    top_k: int
    known: KnownIds
    segments: Segments | None

    def unique_items(self, table: RuleTable) -> pa.Array:
        """Return a table's item ids in the type of the model's, null if an id cannot be of that type.

        Raises InputError if an item has several rows.
        """
        item_ids = table.ids("item_id", self.known.item_type)
        table.refuse_repeats("item_id", item_ids)
        return item_ids


class Rule(ABC):
    """One rule, its users and items by id."""

    @classmethod
    def read_tables(cls, _config: RulesConfig) -> RuleTables:
        """Read the tables of the rule's options as text; none if no option is given.

        Raises InputError for a table that cannot be read, ConfigError for a query that does not run.
        """
        return {}

    @classmethod
    @abstractmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Check the rule's tables and look their ids up; return None if no option of the rule is given.

        Raises InputError for a table with an invalid value, or without any effect.
        """

    @abstractmethod
    def compile(self, vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Add this rule to those that are compiled already, leaving out items that are not in the vocabulary."""
