"""--segments: which user is in which segment."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Longs
from batchrec.config import RulesConfig
from batchrec.rules.rule_tables import RuleTable, RuleTables, read_given
from batchrec.tables.ids import without_blanks
from batchrec.tables.sorted_ids import SortedIds

SEGMENTS = "--segments"


@dataclass(frozen=True)
class Segments:
    """Users by segment: user_ids (users,), a user once; numbers (users,) int64, indexes of names (segments,) string."""

    user_ids: pa.Array
    numbers: Longs
    names: pa.Array

    @cached_property
    def _sorted(self) -> SortedIds:
        return SortedIds(self.user_ids)

    def of(self, user_ids: pa.Array) -> Longs:
        """Return the segment of each user, -1 for a user without one."""
        numbers: Longs = np.append(self.numbers, -1)[self._sorted.places(without_blanks(user_ids))]
        return numbers

    def numbers_of(self, names: pa.Array) -> Longs:
        """Return the number of each segment: -1 for null, -2 for a segment without users."""
        numbers = pc.index_in(names, value_set=self.names).fill_null(-2).to_numpy().astype(np.int64)
        return np.where(names.is_null().to_numpy(zero_copy_only=False), -1, numbers)


def read_segments_table(config: RulesConfig) -> RuleTables:
    """Read the table of --segments; nothing if it is not given. Raises as `read_rule_table`."""
    tables = read_given(SEGMENTS, config.segments, ("user_id", config.segment_column), config)
    return {option: table.without_null_words(config.segment_column) for option, table in tables.items()}


def segments_of(table: RuleTable, column: str, user_type: pa.DataType) -> Segments:
    """Return the segments of a table, the users' ids in the type of the histories.

    Raises InputError if a user has several segments, or a row has none.
    """
    user_ids = table.ids("user_id", user_type)
    table.refuse_repeats("user_id", user_ids)
    coded = table.required(column).dictionary_encode()
    numbers = coded.indices.filter(user_ids.is_valid()).to_numpy().astype(np.int64)
    return Segments(user_ids.drop_null(), numbers, coded.dictionary)
