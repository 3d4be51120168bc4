"""The rule tables of a night, as people write them: by id, and checked."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.arrays import Bools, Ints, Longs
from batchrec.config import RulesConfig
from batchrec.errors import ConfigError
from batchrec.model.batching import Histories
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules, ItemsByUser, SegmentRules
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rule_tables import SEGMENT, RuleTable, RuleTables
from batchrec.rules.segments import Segments, segments_of
from batchrec.sources import show_names
from batchrec.sources.catalogue import ItemColumn, read_catalogue, read_categories
from batchrec.tables.ids import as_ids
from batchrec.tables.schemas import FIRST_ITEM, PAD

_log = logging.getLogger(__name__)

# Segments by items, of which each takes two bytes.
_MOST_CELLS = 1 << 30
_EVERYBODY, _NOBODY = -1, -2


@dataclass(frozen=True)
class UserItemPairs:
    """Items of users by id, pair by pair: users (pairs,) dictionary, item_ids (pairs,)."""

    users: pa.DictionaryArray
    item_ids: pa.Array

    def compile(self, vocabulary: Vocabulary) -> ItemsByUser:
        """Look the items up, leaving out those that are not in the vocabulary."""
        indexes = vocabulary.indexes(self.item_ids)
        users = self.users.indices.to_numpy().astype(np.int64)[indexes != PAD]
        pairs = np.unique(users * vocabulary.size + indexes[indexes != PAD])
        counts = np.bincount(pairs // vocabulary.size, minlength=len(self.users.dictionary) + 1)
        items = (pairs % vocabulary.size).astype(np.int32)
        return ItemsByUser(self.users.dictionary, Histories(items, np.concatenate([[0], np.cumsum(counts)])))


@dataclass(frozen=True)
class ItemList:
    """An allow or block list, row by row: item_ids (rows,), and segments (rows,) int64, -1 in a row for everybody."""

    item_ids: pa.Array
    segments: Longs

    def compile(self, vocabulary: Vocabulary, numbers: Longs) -> Bools:
        """Tell which items are in the list for users of some segments, and in the last row for all others.

        numbers: (n,) int64, rising, every segment that a row names among them. Returns (n + 1, size) bool.
        """
        is_in = np.zeros((len(numbers) + 1, vocabulary.size), bool)
        items = vocabulary.indexes(self.item_ids)
        is_for_all = self.segments == _EVERYBODY
        is_in[:, items[is_for_all]] = True
        is_in[np.searchsorted(numbers, self.segments[~is_for_all]), items[~is_for_all]] = True
        is_in[:, PAD] = False
        return is_in


@dataclass(frozen=True)
class Rulebook:
    """The rule tables as they hold tonight, items by id; None for an option that is not given.

    pinned: by rising places, which are int64 from 0.
    """

    allowed: ItemList | None
    blocked: ItemList | None
    boosted: pa.Array | None
    factors: NDArray[np.float64]
    pinned: pa.Array | None
    places: Longs
    categories: ItemColumn | None
    blocked_for: UserItemPairs | None
    candidates: UserItemPairs | None
    segments: Segments | None
    max_per_category: int
    diversity: float

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule at all."""
        tables = (self.allowed, self.blocked, self.boosted, self.pinned)
        others = (self.categories, self.blocked_for, self.candidates)
        return all(table is None for table in (*tables, *others)) and self.diversity == 0

    @property
    def _named_segments(self) -> Longs:
        lists = [rows.segments for rows in (self.allowed, self.blocked) if rows is not None]
        return np.setdiff1d(np.concatenate([np.empty(0, np.int64), *lists]), [_EVERYBODY]).astype(np.int64)

    def compile(self, vocabulary: Vocabulary) -> CompiledRules:
        """Look the items up in a vocabulary, leaving out those that it has not.

        Raises ConfigError where the lists name too many segments to hold a row of the vocabulary for each.
        """
        factors = np.ones(vocabulary.size)
        if self.boosted is not None:
            factors[vocabulary.indexes(self.boosted)] = self.factors
        is_allowed, is_blocked, by_segment = self._lists_over(vocabulary)
        pins = np.empty(0, np.int32) if self.pinned is None else vocabulary.indexes(self.pinned)
        pin_allowed = (pins != PAD) & is_allowed[pins] & ~is_blocked[pins]
        return CompiledRules(
            is_allowed,
            is_blocked,
            factors,
            pins[pin_allowed],
            self.places[pin_allowed],
            None if self.categories is None else _codes(self.categories.values_of(vocabulary.item_ids)),
            self.max_per_category,
            self.diversity,
            None if self.blocked_for is None else self.blocked_for.compile(vocabulary),
            None if self.candidates is None else self.candidates.compile(vocabulary),
            by_segment,
        )

    def _lists_over(self, vocabulary: Vocabulary) -> tuple[Bools, Bools, SegmentRules | None]:
        numbers = self._named_segments
        n_cells = (len(numbers) + 1) * vocabulary.size
        if n_cells > _MOST_CELLS:
            raise ConfigError(
                f"--allow and --block: {len(numbers)} segments of {len(vocabulary)} items are more than {_MOST_CELLS}; "
                "expected fewer segments. Pass --candidates or --block-for-user for single users"
            )
        everything: Bools = np.ones((len(numbers) + 1, vocabulary.size), bool)
        is_allowed: Bools = everything if self.allowed is None else self.allowed.compile(vocabulary, numbers)
        is_blocked: Bools = (
            np.zeros_like(everything) if self.blocked is None else self.blocked.compile(vocabulary, numbers)
        )
        if self.segments is None or len(numbers) == 0:
            return is_allowed[0], is_blocked[0], None
        is_eligible = np.asarray(is_allowed & ~is_blocked)
        is_eligible[:, :FIRST_ITEM] = False
        by_segment = SegmentRules(self.segments, numbers, is_allowed, is_eligible)
        allowed_to_anybody, open_to_anybody = (np.logical_or.reduce(rows) for rows in (is_allowed, is_eligible))
        return allowed_to_anybody, ~open_to_anybody, by_segment


def _codes(categories: pa.Array) -> Ints:
    codes = categories.dictionary_encode().indices.fill_null(-1).to_numpy()
    return np.concatenate([np.full(FIRST_ITEM, -1), codes]).astype(np.int32)


def read_rules(tables: RuleTables, config: RulesConfig, top_k: int, known: KnownIds) -> Rulebook:
    """Look up what the tables that the options name hold, ids in the types of the model and the histories.

    Raises InputError for a table that holds what it must not, or has no effect.
    """
    segments = None
    if "--segments" in tables:
        known.check_rows("--segments", tables["--segments"], "a user and a segment per row")
        known.check_users("--segments", tables["--segments"])
        segments = segments_of(tables["--segments"], config.segment_column, known.user_type)
        # They are scored, whether they have a history or not.
        also = [segments.user_ids, *([] if known.listed is None else [known.listed])]
        known = replace(known, listed=pa.concat_arrays(also))
    ids = _Reader(tables, known, segments)
    categories = ids.categories(config)
    boosted, factors = ids.boosts()
    pinned, places = ids.pins(config, top_k)
    return Rulebook(
        allowed=ids.valid("--allow", config),
        blocked=ids.valid("--block", config),
        boosted=boosted,
        factors=factors,
        pinned=pinned,
        places=places,
        categories=categories,
        blocked_for=ids.pairs("--block-for-user"),
        candidates=ids.pairs("--candidates"),
        segments=segments,
        max_per_category=config.max_per_category or 0,
        diversity=config.diversity,
    )


@dataclass(frozen=True)
class _Reader:
    """Checks each kind of table, and looks its ids up."""

    tables: RuleTables
    known: KnownIds
    segments: Segments | None

    def valid(self, option: str, config: RulesConfig) -> ItemList | None:
        if option not in self.tables:
            return None
        table = self.tables[option]
        self.known.check_rows(option, table, "an item per row")
        self.known.check_items(option, table)
        numbers = np.full(len(table.rows), _EVERYBODY)
        if self.segments is not None:
            names = table.rows[SEGMENT].combine_chunks()
            self.known.check_segments(option, table, names, self.segments)
            numbers = self.segments.numbers_of(names)
        if table.unread:
            _log.warning("%s %s: columns that are not read: %s", option, table.file, show_names(table.unread))
        holds = table.holds(config.night)
        if len(table.rows) and not pc.any(holds).as_py():
            _log.warning("%s: none of its %d rows holds on %s", option, len(table.rows), config.night)
        item_ids = as_ids(table.required("item_id"), self._item_type)
        is_kept = pc.and_(pc.and_(holds, item_ids.is_valid()), pa.array(numbers != _NOBODY))
        return ItemList(item_ids.filter(is_kept), numbers[is_kept.to_numpy(zero_copy_only=False)])

    def boosts(self) -> tuple[pa.Array | None, NDArray[np.float64]]:
        if "--boost" not in self.tables:
            return None, np.empty(0)
        table = self.tables["--boost"]
        self.known.check_rows("--boost", table, "an item and its factor per row")
        self.known.check_items("--boost", table)
        item_ids, known = self._unique_items(table)
        expected = "a number above 0"
        factors = table.numbers("factor", "item_id", expected)
        fits = pc.and_(pc.greater(factors, 0), pc.is_finite(pc.ln(factors)))
        table.refuse(pc.invert(fits), "factor", "item_id", expected)
        return item_ids.filter(known), factors.to_numpy()[known.to_numpy(zero_copy_only=False)]

    def pins(self, config: RulesConfig, top_k: int) -> tuple[pa.Array | None, Longs]:
        if "--pins" not in self.tables:
            return None, np.empty(0, np.int64)
        table = self.tables["--pins"]
        self.known.check_rows("--pins", table, "an item and its position per row")
        item_ids, known = self._unique_items(table)
        self.known.check_pins(table, lambda: read_catalogue(config, self._item_type, config.night))
        expected = f"a whole number from 1 to --top-k {top_k}"
        positions = table.numbers("position", "item_id", expected)
        fits = pc.is_in(positions, value_set=pa.array(range(1, top_k + 1), pa.float64()))
        table.refuse(pc.invert(fits), "position", "item_id", expected)
        table.refuse_repeats("position", positions.cast(pa.int64()))
        places = positions.to_numpy()[known.to_numpy(zero_copy_only=False)].astype(np.int64) - 1
        order = np.argsort(places)
        return item_ids.filter(known).take(pa.array(order)), places[order]

    def pairs(self, option: str) -> UserItemPairs | None:
        if option not in self.tables:
            return None
        table = self.tables[option]
        self.known.check_rows(option, table, "a user and an item per row")
        self.known.check_users(option, table)
        self.known.check_items(option, table)
        users = as_ids(table.required("user_id"), self.known.user_type)
        items = as_ids(table.required("item_id"), self._item_type)
        known = pc.and_(users.is_valid(), items.is_valid())
        return UserItemPairs(users.filter(known).dictionary_encode(), items.filter(known))

    def categories(self, config: RulesConfig) -> ItemColumn | None:
        categories = read_categories(config, self._item_type)
        if categories is not None:
            values = categories.values_of(self.known.vocabulary.item_ids)
            self.known.check_categories(str(config.items), values)
        return categories

    @property
    def _item_type(self) -> pa.DataType:
        return self.known.vocabulary.item_ids.type

    def _unique_items(self, table: RuleTable) -> tuple[pa.Array, pa.Array]:
        item_ids = as_ids(table.required("item_id"), self._item_type)
        table.refuse_repeats("item_id", item_ids)
        return item_ids, item_ids.is_valid()
