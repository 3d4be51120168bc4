"""--boost: multiply the odds of items."""

from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Doubles
from batchrec.config import RulesConfig
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.rule import Rule, RuleInputs
from batchrec.rules.rule_tables import RuleTables, read_given

_OPTION = "--boost"
_FACTOR = "a number above 0"


@dataclass(frozen=True)
class Boosts(Rule):
    """Factors of items: item_ids (items,), an item once; factors (items,), above 0."""

    item_ids: pa.Array
    factors: Doubles

    @classmethod
    def read_tables(cls, config: RulesConfig) -> RuleTables:
        """Read items and their factors."""
        return read_given(_OPTION, config.boost, ("item_id", "factor"), config)

    @classmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Raise InputError for a factor that is not a number above 0."""
        table = inputs.tables.get(_OPTION)
        if table is None:
            return None
        inputs.known.check_rows(_OPTION, table, "an item and its factor per row")
        inputs.known.check_items(_OPTION, table)
        item_ids = inputs.unique_items(table)
        factors = table.numbers("factor", "item_id", _FACTOR)
        is_valid = pc.and_(pc.greater(factors, 0), pc.is_finite(pc.ln(factors)))
        table.refuse(pc.invert(is_valid), "factor", "item_id", _FACTOR)
        is_id = item_ids.is_valid()
        return cls(item_ids.filter(is_id), factors.filter(is_id).to_numpy())

    def compile(self, vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Set the factors of the vocabulary's items."""
        factors = rules.factors.copy()
        factors[vocabulary.indexes(self.item_ids)] = self.factors
        return replace(rules, factors=factors)
