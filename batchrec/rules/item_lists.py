"""--allow and --block: the items that all users, or those of a segment, get only or do not get."""

import logging
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Bools, Longs
from batchrec.config import RulesConfig
from batchrec.errors import ConfigError
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules, SegmentRules
from batchrec.rules.rule import Rule, RuleInputs
from batchrec.rules.rule_tables import SEGMENT, RuleTable, RuleTables, read_rule_table
from batchrec.rules.segments import Segments
from batchrec.sources import show_names
from batchrec.tables.schemas import FIRST_ITEM, PAD

_log = logging.getLogger(__name__)

_ALLOW, _BLOCK = "--allow", "--block"
_DATES = ("valid_from", "valid_to")
# Maximum number of cells of segments by items, of two bytes each.
_MAX_CELLS = 1 << 30
_EVERYBODY, _NOBODY = -1, -2


@dataclass(frozen=True)
class ItemList:
    """One list, row by row: item_ids (rows,), and segments (rows,) int64, -1 in a row for all users."""

    item_ids: pa.Array
    segments: Longs

    def by_segment(self, vocabulary: Vocabulary, numbers: Longs) -> Bools:
        """Return which items are in the list for users of each segment, and in the last row for all other users.

        numbers: (n,) int64, ascending, with every segment that a row names. Returns (n + 1, size) bool.
        """
        is_listed = np.zeros((len(numbers) + 1, vocabulary.size), bool)
        items = vocabulary.indexes(self.item_ids)
        is_for_all = self.segments == _EVERYBODY
        is_listed[:, items[is_for_all]] = True
        is_listed[np.searchsorted(numbers, self.segments[~is_for_all]), items[~is_for_all]] = True
        is_listed[:, PAD] = False
        return is_listed


@dataclass(frozen=True)
class ItemLists(Rule):
    """The allow list and the block list, each None if it is not given; segments: which user is in which segment."""

    allowed: ItemList | None
    blocked: ItemList | None
    segments: Segments | None

    @classmethod
    def read_tables(cls, config: RulesConfig) -> RuleTables:
        """Read items, and optionally the days and the segment of each row.

        Raises ConfigError for rows with a segment without --segments.
        """
        files = {_ALLOW: config.allow, _BLOCK: config.block}
        return {option: _read_table(file, option, config) for option, file in files.items() if file is not None}

    @classmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Raise InputError for a list of unknown items or segments."""
        allowed, blocked = _read_list(_ALLOW, inputs), _read_list(_BLOCK, inputs)
        return None if allowed is None and blocked is None else cls(allowed, blocked, inputs.segments)

    def compile(self, vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Mark the items that are allowed and blocked, by segment if a row names one.

        Raises ConfigError if the lists name too many segments to hold one row of the vocabulary for each.
        """
        numbers = self._named_segments
        n_cells = (len(numbers) + 1) * vocabulary.size
        if n_cells > _MAX_CELLS:
            raise ConfigError(
                f"--allow and --block: {len(numbers)} segments of {len(vocabulary)} items are more than {_MAX_CELLS}; "
                "expected fewer segments. Pass --candidates or --block-for-user for single users"
            )
        # Rules before this one may forbid items too.
        is_allowed = np.tile(rules.is_allowed, (len(numbers) + 1, 1))
        is_blocked = np.tile(rules.is_blocked, (len(numbers) + 1, 1))
        if self.allowed is not None:
            is_allowed &= self.allowed.by_segment(vocabulary, numbers)
        if self.blocked is not None:
            is_blocked |= self.blocked.by_segment(vocabulary, numbers)
        if self.segments is None or len(numbers) == 0:
            return replace(rules, is_allowed=is_allowed[0], is_blocked=is_blocked[0])
        is_eligible = is_allowed & ~is_blocked
        is_eligible[:, :FIRST_ITEM] = False
        return replace(
            rules,
            is_allowed=np.logical_or.reduce(is_allowed),
            is_blocked=~np.logical_or.reduce(is_eligible),
            by_segment=SegmentRules(self.segments, numbers, is_allowed, is_eligible),
        )

    @property
    def _named_segments(self) -> Longs:
        segments = [rows.segments for rows in (self.allowed, self.blocked) if rows is not None]
        return np.setdiff1d(np.concatenate(segments), [_EVERYBODY]).astype(np.int64)


def _read_table(file: str, option: str, config: RulesConfig) -> RuleTable:
    """Read a list; its segments are in the column --segment-column, or else in the column `segment`."""
    own = config.segment_column
    # If all five columns exist, the last one is not read.
    others = tuple(dict.fromkeys((own, *_DATES, SEGMENT)))
    table = read_rule_table(file, option, ("item_id",), others, config.night)
    segment = own if own.lower() in {name.lower() for name in table.names} else SEGMENT
    rows = table.rows.select(["item_id", segment, *_DATES]).rename_columns(["item_id", SEGMENT, *_DATES])
    read = {"item_id", segment.lower(), *_DATES}
    unread = tuple(name for name in table.names if name.lower() not in read)
    table = replace(table, rows=rows, unread=unread)
    for column in (SEGMENT, *_DATES):
        table = table.without_null_words(column)
    if config.segments is None and table.rows[SEGMENT].null_count < len(table.rows):
        raise ConfigError(
            f"{option} {file}: has rows with a segment; expected --segments of score, a table that says which user is "
            "in which segment, or rows without a segment"
        )
    return table


def _read_list(option: str, inputs: RuleInputs) -> ItemList | None:
    table = inputs.tables.get(option)
    if table is None:
        return None
    known, night = inputs.known, inputs.config.night
    known.check_rows(option, table, "an item per row")
    known.check_items(option, table)
    numbers = np.full(len(table.rows), _EVERYBODY)
    if inputs.segments is not None:
        names = table.rows[SEGMENT].combine_chunks()
        known.check_segments(option, table, names, inputs.segments)
        numbers = inputs.segments.numbers_of(names)
    if table.unread:
        _log.warning("%s %s: columns that are not read: %s", option, table.file, show_names(table.unread))
    is_valid = table.is_valid_on(night)
    if len(table.rows) and not pc.any(is_valid).as_py():
        _log.warning("%s: none of its %d rows is valid on %s", option, len(table.rows), night)
    item_ids = table.ids("item_id", known.item_type)
    is_kept = pc.and_(pc.and_(is_valid, item_ids.is_valid()), pa.array(numbers != _NOBODY))
    return ItemList(item_ids.filter(is_kept), numbers[is_kept.to_numpy(zero_copy_only=False)])
