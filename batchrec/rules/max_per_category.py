"""--max-per-category: let a list hold few items of each category."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from batchrec.arrays import Bools, Ints
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.compiled import CompiledRules
from batchrec.rules.rule import Rule, RuleInputs
from batchrec.sources.catalogue import ItemColumn, read_categories
from batchrec.tables.schemas import FIRST_ITEM


@dataclass(frozen=True)
class MaxPerCategory(Rule):
    """The maximum number of items per category in a list; items without a category do not count."""

    categories: ItemColumn
    maximum: int

    @classmethod
    def read(cls, inputs: RuleInputs) -> Self | None:
        """Raise InputError if the catalogue has a category for none of the model's items."""
        config, known = inputs.config, inputs.known
        categories = read_categories(config, known.item_type)
        if categories is None or config.max_per_category is None:
            return None
        known.check_categories(str(config.items), categories.values_of(known.vocabulary.item_ids))
        return cls(categories, config.max_per_category)

    def compile(self, vocabulary: Vocabulary, rules: CompiledRules) -> CompiledRules:
        """Encode the categories of the vocabulary's items."""
        names = self.categories.values_of(vocabulary.item_ids)
        codes = names.dictionary_encode().indices.fill_null(-1).to_numpy()
        categories = np.concatenate([np.full(FIRST_ITEM, -1), codes]).astype(np.int32)
        return replace(rules, categories=categories, max_per_category=self.maximum)


def within_maximum(categories: Ints, is_open: Bools, maximum: int) -> Bools:
    """Return which open items of each row are among the first `maximum` of their category.

    categories: (rows, items) int32, -1 for an item without a category; is_open: (rows, items) bool.
    Returns (rows, items) bool.
    """
    n_rows, n_items = categories.shape
    n_categories = int(categories.max(initial=0)) + 1
    counted = np.flatnonzero(is_open & (categories >= 0))
    keys = counted // max(1, n_items) * n_categories + categories.ravel()[counted]
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    numbers = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    fits = is_open.ravel().copy()
    fits[counted[order]] = numbers < maximum
    return fits.reshape(n_rows, n_items)
