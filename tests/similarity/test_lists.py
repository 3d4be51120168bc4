"""The lists of similar items equal those of plain loops over all pairs of items."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.arrays import Floats
from batchrec.model.blend import Blend
from batchrec.model.directory import load_model
from batchrec.similarity import lists
from batchrec.similarity.lists import SimilarLists, best_places, unit_vectors
from batchrec.tables.schemas import FIRST_ITEM
from tests.support.models import longs, trained_model

# Products and sums of these numbers are exact, so that equal scores are equal.
EIGHTHS = st.integers(1, 8).map(lambda number: number / 8)


@dataclass(frozen=True)
class Scene:
    """Items from FIRST_ITEM on. similarities: item -> other item -> similarity; vectors: of each item, or None."""

    similarities: list[dict[int, float]]
    vectors: list[list[int]] | None
    is_eligible: list[bool]
    top_k: int

    @property
    def size(self) -> int:
        return len(self.is_eligible)

    def blend(self) -> Blend:
        neighbours = np.zeros((self.size, self.size), np.int32)
        similarities = np.zeros((self.size, self.size), np.float32)
        for item, of_item in enumerate(self.similarities):
            best = sorted(of_item, key=lambda other: (-of_item[other], other))
            neighbours[item, : len(best)] = best
            similarities[item, : len(best)] = [of_item[other] for other in best]
        nothing = np.zeros(1, np.float32)
        return Blend(nothing, nothing, neighbours, similarities, nothing, nothing)

    def plain_list(self, item: int) -> list[tuple[int, float, bool]]:
        """Return the similar items of an item, their scores, and whether they share users."""
        scores = {}
        for other in range(FIRST_ITEM, self.size):
            similarity = self.similarities[item].get(other)
            if other == item or not self.is_eligible[other] or (self.vectors is None and similarity is None):
                continue
            products = 0.0
            if self.vectors is not None:
                products = sum(a * b for a, b in zip(self.vectors[item], self.vectors[other], strict=True)) / 4
            scores[other] = products + (similarity or 0)
        best = sorted(scores, key=lambda other: (-scores[other], other))[: self.top_k]
        return [(other, scores[other], other in self.similarities[item]) for other in best]


@st.composite
def scenes(draw: st.DrawFn, has_vectors: bool) -> Scene:
    size = draw(st.integers(FIRST_ITEM + 1, 12))
    items = range(size)

    def similarities_of(item: int) -> dict[int, float]:
        others = [other for other in items[FIRST_ITEM:] if FIRST_ITEM <= item != other]
        return draw(st.dictionaries(st.sampled_from(others), EIGHTHS)) if others else {}

    numbers = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    vectors = [draw(numbers) for _ in items] if has_vectors else None
    is_eligible = [item >= FIRST_ITEM and draw(st.booleans()) for item in items]
    return Scene([similarities_of(item) for item in items], vectors, is_eligible, draw(st.integers(1, 13)))


def made(scene: Scene, items: list[int]) -> dict[int, list[tuple[int, float, bool]]]:
    vectors = None if scene.vectors is None else np.array(scene.vectors, np.float32)
    of_scene = SimilarLists(scene.blend(), vectors, 0.25, np.array(scene.is_eligible))
    rows: dict[int, list[tuple[int, float, bool]]] = {item: [] for item in items}
    for chunk in of_scene.chunks(longs(items), scene.top_k):
        columns: Any = (chunk.items, chunk.ranks, chunk.similar, chunk.scores, chunk.is_shared)
        for item, rank, similar, score, is_shared in zip(*(column.tolist() for column in columns), strict=True):
            rows[item].append((similar, score, is_shared))
            assert rank == len(rows[item])
    return rows


@given(st.booleans().flatmap(scenes), st.data())
def test_any_lists_equal_a_plain_loop_over_all_pairs(scene: Scene, data: st.DataObject) -> None:
    items = data.draw(st.permutations(range(FIRST_ITEM, scene.size)))
    expected = {item: scene.plain_list(item) for item in items}
    assert made(scene, items) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "_SCORES_AT_A_TIME", 2 * scene.size)
        assert made(scene, items) == expected


SCORES = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0]), min_size=90, max_size=90)


@given(st.lists(SCORES, min_size=1, max_size=3), st.integers(1, 6))
def test_the_best_places_are_the_first_of_a_stable_sort(rows: list[list[float]], top_k: int) -> None:
    scores: Floats = np.array(rows, np.float32)
    in_row, places, best = best_places(scores, top_k)
    for row, of_row in enumerate(rows):
        ordered = sorted(range(len(of_row)), key=lambda place: (-of_row[place], place))
        expected = [place for place in ordered if of_row[place] > -np.inf][:top_k]
        assert places[in_row == row].tolist() == expected
        assert best[in_row == row].tolist() == [of_row[place] for place in expected]


def test_of_scores_that_differ_in_the_last_bits_the_lower_place_comes_first() -> None:
    scores = np.array([[0.1, 0.3, np.nextafter(np.float32(0.3), np.float32(1)), 0.2, 0.3]], np.float32)
    assert best_places(scores, 2)[1].tolist() == [1, 2]


def test_of_scores_that_round_alike_the_lower_place_comes_first() -> None:
    # As far apart as two such scores may be.
    assert best_places(np.array([[1.0588515, 1.0588526]], np.float32), 1)[1].tolist() == [0]


def test_unit_vectors_are_centred_and_of_length_one() -> None:
    vectors = unit_vectors(load_model(trained_model()))[FIRST_ITEM:]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # All items but their common part: the mean of vectors at their own lengths would be 0.
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.5
