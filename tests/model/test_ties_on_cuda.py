"""Items of the same score on a device whose top k leaves their order open, as CUDA's does."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchrec.model.batching import NO_PAIRS, SeenPairs
from batchrec.model.blend import NO_HABITS
from batchrec.model.directory import read_graph
from batchrec.model.graph import Graph
from batchrec.model.ranker import Ranker
from batchrec.model.runs import RunInputs
from batchrec.tables.schemas import FIRST_ITEM
from tests.support.models import small_encoder, zero_blend
from tests.support.shared import exported

N_ITEMS = 40


@cache
def graph() -> Graph:
    """A graph whose scores are the item_offsets alone."""
    size = N_ITEMS + FIRST_ITEM
    return read_graph(exported(small_encoder(size), zero_blend(size)))


class AnyOrder(Ranker):
    """A ranker whose session leaves the order of ties, and the choice among them, to chance."""

    def __init__(self, offsets: NDArray[np.float32], seed: int) -> None:
        super().__init__(graph(), "cpu", item_offsets=offsets)
        self.device = "cuda"
        self.depths: list[int] = []
        self._generator = np.random.default_rng(seed)

    def _run(self, inputs: RunInputs, *outputs: str) -> list[NDArray[Any]]:
        if "items" not in outputs:
            return super()._run(inputs, *outputs)
        self.depths.append(inputs.top_k)
        scores, items, *others = super()._run(replace(inputs, top_k=N_ITEMS), *outputs)
        order = np.lexsort((self._generator.random(scores.shape), -scores))[:, : inputs.top_k]
        return [*(np.take_along_axis(values, order, axis=1) for values in (scores, items)), *others]


def ranked(ranker: Ranker, seen: list[set[int]], top_k: int) -> list[list[int]]:
    tokens = np.full((len(seen), 1), FIRST_ITEM, np.int32)
    pairs = [(row, item) for row, items in enumerate(seen) for item in sorted(items)]
    rows, items = np.array(pairs, np.int64).reshape(-1, 2).T
    asked = SeenPairs(np.arange(len(seen)), np.full(len(seen), FIRST_ITEM))
    ranking, scores = ranker.rank_and_score(tokens, SeenPairs(rows, items), top_k, asked, NO_HABITS)
    assert scores.shape == (len(seen),)
    lists, again = (
        [row[is_item].tolist() for row, is_item in zip(outcome.items, outcome.is_item, strict=True)]
        for outcome in (ranking, ranker.rank(tokens, SeenPairs(rows, items), top_k))
    )
    assert lists == again
    return lists


@given(
    st.lists(st.integers(0, 3), min_size=N_ITEMS + FIRST_ITEM, max_size=N_ITEMS + FIRST_ITEM),
    st.lists(st.sets(st.integers(FIRST_ITEM, N_ITEMS + FIRST_ITEM - 1)), min_size=1, max_size=4),
    st.integers(1, N_ITEMS),
    st.integers(0, 9),
)
def test_ties_are_in_the_order_of_the_cpu(levels: list[int], seen: list[set[int]], top_k: int, seed: int) -> None:
    offsets = np.array(levels, np.float32)
    expected = [
        sorted(set(range(FIRST_ITEM, len(levels))) - items, key=lambda item: (-levels[item], item))[:top_k]
        for items in seen
    ]
    assert ranked(AnyOrder(offsets, seed), seen, top_k) == expected
    assert ranked(Ranker(graph(), "cpu", item_offsets=offsets), seen, top_k) == expected


def test_only_lists_that_end_within_a_tie_are_ranked_deeper() -> None:
    offsets = -np.arange(N_ITEMS + FIRST_ITEM, dtype=np.float32)
    ranker = AnyOrder(offsets, 0)
    assert ranked(ranker, [set()], 5) == [[2, 3, 4, 5, 6]]
    assert ranker.depths == [6, 6]
    offsets[6:20] = offsets[6]
    ranker = AnyOrder(offsets, 0)
    assert ranked(ranker, [set(), set(range(2, 20))], 5) == [[2, 3, 4, 5, 6], [20, 21, 22, 23, 24]]
    assert ranker.depths == [6, 12, 24] * 2


def test_the_scores_of_pairs_are_computed_without_lists() -> None:
    ranker = AnyOrder(np.arange(N_ITEMS + FIRST_ITEM, dtype=np.float32) // 10, 0)
    tokens, asked = np.full((2, 1), FIRST_ITEM, np.int32), SeenPairs(np.array([0, 1, 1]), np.array([9, 10, 41]))
    assert ranker.score(tokens, asked)[0].tolist() == [0, 1, 4]
    assert ranker.depths == []


def test_the_device_of_these_tests_leaves_ties_to_chance() -> None:
    ranker = AnyOrder(np.zeros(N_ITEMS + FIRST_ITEM, np.float32), 0)
    ranker.device = "cpu"
    ranking = ranker.rank(np.full((1, 1), FIRST_ITEM, np.int32), NO_PAIRS, 9)
    assert ranking.items.tolist() != [list(range(FIRST_ITEM, FIRST_ITEM + 9))]
