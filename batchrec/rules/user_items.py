"""--block-for-user and --candidates: the items that single users do not get, or get only."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import RulesConfig
from batchrec.model.batching import Histories
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules, ItemsByUser
from batchrec.rules.rule import Rule, RuleInputs
from batchrec.rules.rule_tables import RuleTables, read_given
from batchrec.tables.schemas import PAD

_BLOCK, _CANDIDATES = "--block-for-user", "--candidates"
_COLUMNS = ("user_id", "item_id")


@dataclass(frozen=True)
class UserItemPairs:
    """Pairs of a user and an item, by id: users (pairs,) dictionary, item_ids (pairs,)."""

    users: pa.DictionaryArray
    item_ids: pa.Array

    @classmethod
    def read(cls, option: str, inputs: RuleInputs) -> Self | None:
        """Check the table of an option and look its ids up; return None if it is not given."""
        table = inputs.tables.get(option)
        if table is None:
            return None
        inputs.known.check_rows(option, table, "a user and an item per row")
        inputs.known.check_users(option, table)
        inputs.known.check_items(option, table)
        users = table.ids("user_id", inputs.known.user_type)
        items = table.ids("item_id", inputs.known.item_type)
        is_pair = pc.and_(users.is_valid(), items.is_valid())
        return cls(users.filter(is_pair).dictionary_encode(), items.filter(is_pair))

    def compile(self, vocabulary: Vocabulary) -> ItemsByUser:
        """Look the items up, leaving out those that are not in the vocabulary."""
        indexes = vocabulary.indexes(self.item_ids)
        users = self.users.indices.to_numpy().astype(np.int64)[indexes != PAD]
        pairs = np.unique(users * vocabulary.size + indexes[indexes != PAD])
        counts = np.bincount(pairs // vocabulary.size, minlength=len(self.users.dictionary) + 1)
        items = (pairs % vocabulary.size).astype(np.int32)
        return ItemsByUser(self.users.dictionary, Histories(items, np.concatenate([[0], np.cumsum(counts)])))


@dataclass(frozen=True)
class BlockForUser(Rule):
    """Items that a user does not get."""

    pairs: UserItemPairs

    @classmethod
    def read_tables(cls, config: RulesConfig) -> RuleTables:
        """Read pairs of a user and an item."""
        return read_given(_BLOCK, config.block_for_user, _COLUMNS, config)

    @classmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Raise InputError for a table of unknown users or items."""
        pairs = UserItemPairs.read(_BLOCK, inputs)
        return None if pairs is None else cls(pairs)

    def compile(self, vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Set the blocked items of each user."""
        return replace(rules, blocked_for=self.pairs.compile(vocabulary))


@dataclass(frozen=True)
class Candidates(Rule):
    """The only items that a user gets; users without any get no list."""

    pairs: UserItemPairs

    @classmethod
    def read_tables(cls, config: RulesConfig) -> RuleTables:
        """Read pairs of a user and an item."""
        return read_given(_CANDIDATES, config.candidates, _COLUMNS, config)

    @classmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Raise InputError for a table of unknown users or items."""
        pairs = UserItemPairs.read(_CANDIDATES, inputs)
        return None if pairs is None else cls(pairs)

    def compile(self, vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Set the candidates of each user."""
        return replace(rules, candidates=self.pairs.compile(vocabulary))
