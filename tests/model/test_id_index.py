import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrec.model import id_index, vocabulary
from batchrec.model.id_index import IdIndex
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import FIRST_ITEM, PAD

# Of a small alphabet, so that many are equal, or begin alike; bytes of 0 count.
texts = st.lists(st.text("a\0é", max_size=20), max_size=30)
numbers = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9), max_size=30)


def first_places(known: list[object], asked: list[object]) -> list[int]:
    return [known.index(one) if one in known else -1 for one in asked]


@given(texts.filter(len), texts)
@example(["a", "a\0", "", "\0"], ["\0", "", "a\0\0", "a"])
def test_texts_are_found_at_their_first_place(known: list[str], asked: list[str]) -> None:
    index = IdIndex(pa.array(known, pa.string()))
    assert index.is_exact
    for ids in (asked, known):
        expected = first_places([*known], [*ids])
        assert index.places(pa.array(ids, pa.string())).tolist() == expected
        # Of a larger array.
        assert index.places(pa.array(["b", *ids, "b"])[1:-1]).tolist() == expected


@given(numbers.filter(len), numbers)
def test_numbers_are_found_at_their_first_place(known: list[int], asked: list[int]) -> None:
    index = IdIndex(pa.array(known, pa.int64()))
    assert index.is_exact
    for ids in (asked, known):
        assert index.places(pa.array(ids, pa.int64())).tolist() == first_places([*known], [*ids])


def lettered(n_items: int) -> Vocabulary:
    """Return a vocabulary with the ids "a0", "a1" and so on; the first one is padded with blanks."""
    ids = [" a0 ", *(f"a{number}" for number in range(1, n_items))]
    return Vocabulary(pa.array(ids), np.zeros(n_items, np.int64))


def test_a_vocabulary_makes_its_indexes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(ids: pa.Array) -> IdIndex:
        made.append(len(ids))
        return IdIndex(ids)

    monkeypatch.setattr(vocabulary, "IdIndex", make)
    items = lettered(20)
    for _ in range(3):
        assert items.indexes(pa.array(["a3", " a3", "a0", "?"])).tolist() == [5, 5, FIRST_ITEM, PAD]
    assert made == [20, 20]


def test_few_and_many_ids_are_looked_up_alike() -> None:
    items, asked = lettered(20), ["a3", " a3", "a0", "?", " a0 ", "a19"] * 20
    one_by_one = [int(items.indexes(pa.array([one]))[0]) for one in asked]
    assert items.indexes(pa.array(asked)).tolist() == one_by_one == [5, 5, 2, PAD, 2, 21] * 20


def test_ids_with_equal_digests_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_index, "_keys", lambda ids: np.zeros(len(ids), np.uint64))
    assert not IdIndex(pa.array(["a", "b"])).is_exact
    assert lettered(20).indexes(pa.array(["a3", "a0", "?"])).tolist() == [5, FIRST_ITEM, PAD]
