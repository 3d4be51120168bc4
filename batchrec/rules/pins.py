"""--pins: put items at fixed positions of every list."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Longs
from batchrec.config import RulesConfig
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.rule import Rule, RuleInputs
from batchrec.rules.rule_tables import RuleTables, read_given
from batchrec.sources.catalogue import read_catalogue
from batchrec.tables.schemas import PAD

_OPTION = "--pins"


@dataclass(frozen=True)
class Pins(Rule):
    """Pinned items and their places from 0, ascending: item_ids (pins,), an item once; places (pins,) int64."""

    item_ids: pa.Array
    places: Longs

    @classmethod
    def read_tables(cls, config: RulesConfig) -> RuleTables:
        """Read items and their positions."""
        return read_given(_OPTION, config.pins, ("item_id", "position"), config)

    @classmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Raise InputError for a position that is not in the list, or has several items."""
        table = inputs.tables.get(_OPTION)
        if table is None:
            return None
        known, config = inputs.known, inputs.config
        known.check_rows(_OPTION, table, "an item and its position per row")
        item_ids = inputs.unique_items(table)
        known.check_pins(table, lambda: read_catalogue(config, known.item_type, config.night))
        expected = f"a whole number from 1 to --top-k {inputs.top_k}"
        positions = table.numbers("position", "item_id", expected)
        is_valid = pc.is_in(positions, value_set=pa.array(range(1, inputs.top_k + 1), pa.float64()))
        table.refuse(pc.invert(is_valid), "position", "item_id", expected)
        table.refuse_repeats("position", positions.cast(pa.int64()))
        is_id = item_ids.is_valid()
        places = positions.filter(is_id).to_numpy().astype(np.int64) - 1
        order = np.argsort(places)
        return cls(item_ids.filter(is_id).take(pa.array(order)), places[order])

    def compile(self, vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Pin the items that the rules compiled so far allow."""
        pins = vocabulary.indexes(self.item_ids)
        pin_allowed = (pins != PAD) & rules.is_allowed[pins] & ~rules.is_blocked[pins]
        return replace(rules, pins=pins[pin_allowed], places=self.places[pin_allowed])
