"""The rules of a night: all that there are, read from their tables and compiled together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from batchrec.config import RulesConfig
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.boosts import Boosts
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.diversity import Diversity
from batchrec.rules.item_lists import ItemLists
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.max_per_category import MaxPerCategory
from batchrec.rules.pins import Pins
from batchrec.rules.rule import Rule, RuleInputs
from batchrec.rules.rule_tables import RuleTable, RuleTables
from batchrec.rules.segments import SEGMENTS, Segments, read_segments_table, segments_of
from batchrec.rules.user_items import BlockForUser, Candidates

# In the order in which they are compiled. A rule that blocks items comes before ItemLists, which splits what is left by
# segment; Pins comes after it, because only allowed items are pinned.
RULES: tuple[type[Rule], ...] = (ItemLists, Boosts, Pins, BlockForUser, Candidates, MaxPerCategory, Diversity)


@dataclass(frozen=True)
class Rulebook:
    """The given rules, items by id; segments: which user is in which segment, None without --segments."""

    rules: tuple[Rule, ...]
    segments: Segments | None

    @property
    def is_empty(self) -> bool:
        """Whether no rule is given."""
        return not self.rules

    @property
    def pinned(self) -> pa.Array | None:
        """The ids of the pinned items, which need not be in the model; None without --pins."""
        return next((rule.item_ids for rule in self.rules if isinstance(rule, Pins)), None)

    def compile(self, vocabulary: Vocabulary) -> CompiledRules:
        """Look the items up in a vocabulary, leaving out those that are not in it.

        Raises ConfigError if the lists name too many segments to hold one row of the vocabulary for each.
        """
        rules = CompiledRules.without_rules(vocabulary.size)
        for rule in self.rules:
            rules = rule.compile(vocabulary, rules)
        return rules


def read_rule_tables(config: RulesConfig) -> RuleTables:
    """Read the tables of all options that are given, as text.

    Raises InputError for a table that cannot be read, ConfigError for a query that does not run, and for rows with a
    segment without --segments.
    """
    tables: Mapping[str, RuleTable] = {}
    for rule in RULES:
        tables = {**tables, **rule.read_tables(config)}
    return {**tables, **read_segments_table(config)}


def read_rules(tables: RuleTables, config: RulesConfig, top_k: int, known: KnownIds) -> Rulebook:
    """Check the tables and look their ids up, in the types of the model's items and the histories' users.

    Raises InputError for a table with an invalid value, or without any effect.
    """
    segments = None
    if SEGMENTS in tables:
        known.check_rows(SEGMENTS, tables[SEGMENTS], "a user and a segment per row")
        known.check_users(SEGMENTS, tables[SEGMENTS])
        segments = segments_of(tables[SEGMENTS], config.segment_column, known.user_type)
        # Users in a segment are scored, with or without a history.
        listed = [segments.user_ids, *([] if known.listed is None else [known.listed])]
        known = replace(known, listed=pa.concat_arrays(listed))
    inputs = RuleInputs(tables, config, top_k, known, segments)
    rules = (rule.read(inputs) for rule in RULES)
    return Rulebook(tuple(rule for rule in rules if rule is not None), segments)
