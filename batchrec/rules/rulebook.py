"""The rule tables of a night, as people write them: by id, and checked."""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.batching import Histories, Ints, Longs
from batchrec.catalogue import Catalogue, read_column
from batchrec.config import RulesConfig
from batchrec.ids import as_ids
from batchrec.rules.rules import Bools, Rules, UserLists
from batchrec.rules.tables import RuleTable, read_rule_table, valid_items
from batchrec.schemas import FIRST_ITEM, PAD
from batchrec.vocabulary import Vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UserItems:
    """Items of users by id, pair by pair: users (pairs,) dictionary, item_ids (pairs,)."""

    users: pa.DictionaryArray
    item_ids: pa.Array

    def over(self, vocabulary: Vocabulary) -> UserLists:
        """Look the items up, leaving out those that are not in the vocabulary."""
        indexes = vocabulary.indexes(self.item_ids)
        users = self.users.indices.to_numpy().astype(np.int64)[indexes != PAD]
        pairs = np.unique(users * vocabulary.size + indexes[indexes != PAD])
        counts = np.bincount(pairs // vocabulary.size, minlength=len(self.users.dictionary) + 1)
        items = (pairs % vocabulary.size).astype(np.int32)
        return UserLists(self.users.dictionary, Histories(items, np.concatenate([[0], np.cumsum(counts)])))


@dataclass(frozen=True)
class Rulebook:
    """The rule tables as they hold tonight, items by id; None for an option that is not given.

    pinned: by rising places, which are int64 from 0.
    """

    allowed: pa.Array | None
    blocked: pa.Array | None
    boosted: pa.Array | None
    factors: NDArray[np.float64]
    pinned: pa.Array | None
    places: Longs
    categories: Catalogue | None
    blocked_for: UserItems | None
    candidates: UserItems | None
    max_per_category: int
    diversity: float

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule at all."""
        tables = (self.allowed, self.blocked, self.boosted, self.pinned)
        others = (self.categories, self.blocked_for, self.candidates)
        return all(table is None for table in (*tables, *others)) and self.diversity == 0

    def over(self, vocabulary: Vocabulary) -> Rules:
        """Look the items up in a vocabulary, leaving out those that it has not."""
        factors = np.ones(vocabulary.size)
        if self.boosted is not None:
            factors[vocabulary.indexes(self.boosted)] = self.factors
        is_allowed = _is_in(self.allowed, vocabulary) if self.allowed is not None else np.ones(vocabulary.size, bool)
        is_blocked = _is_in(self.blocked, vocabulary)
        pins = np.empty(0, np.int32) if self.pinned is None else vocabulary.indexes(self.pinned)
        stands = (pins != PAD) & is_allowed[pins] & ~is_blocked[pins]
        return Rules(
            is_allowed,
            is_blocked,
            factors,
            pins[stands],
            self.places[stands],
            None if self.categories is None else _codes(self.categories.titles_of(vocabulary.item_ids)),
            self.max_per_category,
            self.diversity,
            None if self.blocked_for is None else self.blocked_for.over(vocabulary),
            None if self.candidates is None else self.candidates.over(vocabulary),
        )


def _is_in(item_ids: pa.Array | None, vocabulary: Vocabulary) -> Bools:
    is_in = np.zeros(vocabulary.size, bool)
    if item_ids is not None:
        is_in[vocabulary.indexes(item_ids)] = True
        is_in[PAD] = False
    return is_in


def _codes(categories: pa.Array) -> Ints:
    codes = categories.dictionary_encode().indices.fill_null(-1).to_numpy()
    return np.concatenate([np.full(FIRST_ITEM, -1), codes]).astype(np.int32)


def read_rules(config: RulesConfig, top_k: int, vocabulary: Vocabulary, user_type: pa.DataType) -> Rulebook:
    """Read the tables that the options name.

    Raises InputError for a table that cannot be read or holds what it must not, ConfigError for a query that does not
    run.
    """
    ids = _Reader(vocabulary, user_type)
    boosted, factors = ids.boosts(config.boost)
    pinned, places = ids.pins(config.pins, top_k)
    categories = None
    if config.category_column is not None and config.items is not None:
        named = (config.category_column, "--category-column")
        categories = read_column(config.items, config.item_column, named, vocabulary.item_ids.type, config.night)
    return Rulebook(
        allowed=ids.valid(config.allow, "--allow", config),
        blocked=ids.valid(config.block, "--block", config),
        boosted=boosted,
        factors=factors,
        pinned=pinned,
        places=places,
        categories=categories,
        blocked_for=ids.pairs(config.block_for_user, "--block-for-user"),
        candidates=ids.pairs(config.candidates, "--candidates"),
        max_per_category=config.max_per_category or 0,
        diversity=config.diversity,
    )


@dataclass(frozen=True)
class _Reader:
    """Reads each kind of table, ids in the types of the model and the sequences."""

    vocabulary: Vocabulary
    user_type: pa.DataType

    def valid(self, file: str | None, option: str, config: RulesConfig) -> pa.Array | None:
        if file is None:
            return None
        table = read_rule_table(file, option, ["item_id"], ["valid_from", "valid_to"], config.night)
        if option == "--allow":
            table.refuse_none("a row an item that may be recommended")
        return self._items(valid_items(table, config.night), option).drop_null()

    def boosts(self, file: str | None) -> tuple[pa.Array | None, NDArray[np.float64]]:
        if file is None:
            return None, np.empty(0)
        table = read_rule_table(file, "--boost", ["item_id", "factor"])
        item_ids, known = self._unique_items(table, "--boost")
        expected = "a number above 0"
        factors = table.numbers("factor", "item_id", expected)
        fits = pc.and_(pc.greater(factors, 0), pc.is_finite(pc.ln(factors)))
        table.refuse(pc.invert(fits), "factor", "item_id", expected)
        return item_ids.filter(known), factors.to_numpy()[known.to_numpy(zero_copy_only=False)]

    def pins(self, file: str | None, top_k: int) -> tuple[pa.Array | None, Longs]:
        if file is None:
            return None, np.empty(0, np.int64)
        table = read_rule_table(file, "--pins", ["item_id", "position"])
        item_ids, known = self._unique_items(table, "--pins")
        expected = f"a whole number from 1 to --top-k {top_k}"
        positions = table.numbers("position", "item_id", expected)
        fits = pc.is_in(positions, value_set=pa.array(range(1, top_k + 1), pa.float64()))
        table.refuse(pc.invert(fits), "position", "item_id", expected)
        table.refuse_repeats("position", positions.cast(pa.int64()))
        places = positions.to_numpy()[known.to_numpy(zero_copy_only=False)].astype(np.int64) - 1
        order = np.argsort(places)
        return item_ids.filter(known).take(pa.array(order)), places[order]

    def pairs(self, file: str | None, option: str) -> UserItems | None:
        if file is None:
            return None
        table = read_rule_table(file, option, ["user_id", "item_id"])
        if option == "--candidates":
            table.refuse_none("a row an item that a user may get")
        users = table.ids("user_id", self.user_type)
        items = self._items(table.required("item_id"), option)
        known = pc.and_(users.is_valid(), items.is_valid())
        return UserItems(users.filter(known).dictionary_encode(), items.filter(known))

    def _unique_items(self, table: RuleTable, option: str) -> tuple[pa.Array, pa.Array]:
        item_ids = self._items(table.required("item_id"), option)
        table.refuse_repeats("item_id", item_ids)
        return item_ids, item_ids.is_valid()

    def _items(self, text: pa.Array, option: str) -> pa.Array:
        item_ids = as_ids(text, self.vocabulary.item_ids.type)
        n_known = int((self.vocabulary.indexes(pc.unique(item_ids.drop_null())) != PAD).sum())
        n_items = pc.count_distinct(text).as_py()
        if n_known < n_items:
            _log.info("%s: the model knows %d of %d items", option, n_known, n_items)
        return item_ids
