from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchrec.model.batching import Histories, length_sorted, pad, scoring_tokens, seen_pairs, spans, token_batches
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import MASK, PAD
from tests.support.models import SHAPE, indexed, longs

items = st.integers(2, 30)
many_histories = st.lists(st.lists(items, max_size=12), min_size=1, max_size=8)


def padded(rows: list[list[int]], n_extra: int = 0) -> list[list[int]]:
    """Rows as wide as the longest plus n_extra, with PAD after each row's end."""
    width = max(map(len, rows), default=0) + n_extra
    return [row + [PAD] * (width - len(row)) for row in rows]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=8))
def test_spans_are_ranges_one_after_another(ranges: list[tuple[int, int]]) -> None:
    places = spans(longs([start for start, _ in ranges]), longs([length for _, length in ranges]))
    assert places.tolist() == [place for start, length in ranges for place in range(start, start + length)]


@given(st.data(), st.integers(0, 2))
def test_pad_lays_spans_out_as_rows(data: st.DataObject, n_extra: int) -> None:
    line = np.arange(2, 22, dtype=np.int32)
    chosen = data.draw(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=6))
    tokens = pad(line, longs([start for start, _ in chosen]), longs([length for _, length in chosen]), n_extra)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == padded([line.tolist()[start : start + length] for start, length in chosen], n_extra)


@given(many_histories, st.integers(2, 9), st.data())
def test_a_causal_encoder_is_shown_the_newest_items(
    histories: list[list[int]], max_len: int, data: st.DataObject
) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), min_size=1, max_size=10))
    tokens = scoring_tokens(indexed(*histories), longs(users), replace(SHAPE, objective="causal", max_len=max_len))
    assert tokens.tolist() == padded([histories[user][-max_len:] for user in users])
    assert tokens.dtype == np.int32


@given(many_histories, st.integers(2, 9), st.data())
def test_a_masked_encoder_is_shown_the_newest_items_and_a_mask(
    histories: list[list[int]], max_len: int, data: st.DataObject
) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), min_size=1, max_size=10))
    tokens = scoring_tokens(indexed(*histories), longs(users), replace(SHAPE, objective="masked", max_len=max_len))
    assert tokens.tolist() == padded([[*histories[user][-(max_len - 1) :], MASK] for user in users])
    assert tokens.shape[1] <= max_len


@given(many_histories, st.data())
def test_seen_pairs_hold_the_full_history(histories: list[list[int]], data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=10))
    seen = seen_pairs(indexed(*histories), longs(users))
    expected = [(row, item) for row, user in enumerate(users) for item in histories[user]]
    assert list(zip(seen.rows.tolist(), seen.items.tolist(), strict=True)) == expected
    assert seen.rows.dtype == seen.items.dtype == np.int64


@given(many_histories, st.data())
def test_take_gives_the_histories_asked_for(histories: list[list[int]], data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=10))
    taken = indexed(*histories).take(longs(users))
    bounds = list(pairwise(taken.offsets.tolist()))
    assert [taken.items[start:end].tolist() for start, end in bounds] == [histories[user] for user in users]
    assert len(taken) == len(users)


@given(st.lists(st.integers(0, 20), max_size=40), st.integers(1, 9))
def test_length_sorted_batches_hold_each_user_once(lengths: list[int], batch_size: int) -> None:
    batches = [batch.tolist() for batch in length_sorted(longs(lengths), batch_size)]
    order = [row for batch in batches for row in batch]
    assert order == sorted(range(len(lengths)), key=lambda row: lengths[row])
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(1, 60), st.integers(1, 9))
def test_token_batches_are_as_large_as_tokens_and_users_allow(lengths: list[int], tokens: int, users: int) -> None:
    batches = [batch.tolist() for batch in token_batches(longs(lengths), tokens, users)]
    order = [row for batch in batches for row in batch]
    assert order == sorted(range(len(lengths)), key=lambda row: lengths[row])

    def is_allowed(batch: list[int]) -> bool:
        return len(batch) == 1 or (len(batch) <= users and len(batch) * max(lengths[row] for row in batch) <= tokens)

    assert all(is_allowed(batch) for batch in batches)
    assert not any(is_allowed([*batch, following[0]]) for batch, following in pairwise(batches))


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8),
    st.lists(st.integers(0, 9), unique=True, min_size=1),
    st.data(),
)
def test_histories_leave_out_unknown_items(lists: list[list[int]], known: list[int], data: st.DataObject) -> None:
    vocabulary = Vocabulary(pa.array(known, pa.int64()), np.ones(len(known), np.int64))
    offset = data.draw(st.integers(0, len(lists)))
    length = data.draw(st.integers(0, len(lists) - offset))
    column = pa.array(lists, pa.list_(pa.int64())).slice(offset, length)
    histories = Histories.from_arrow(column, vocabulary)
    expected = [[known.index(item) + 2 for item in row if item in known] for row in lists[offset : offset + length]]
    bounds = list(pairwise(histories.offsets.tolist()))
    assert [histories.items[start:end].tolist() for start, end in bounds] == expected
    assert histories.lengths.tolist() == [len(row) for row in expected]
    assert histories.items.dtype == np.int32


def test_integers_and_their_text_are_the_same_item() -> None:
    vocabulary = Vocabulary(pa.array([7, 5], pa.int64()), longs([2, 1]))
    histories = Histories.from_arrow(pa.array([["5", "x", "7"]]), vocabulary)
    assert histories.items.tolist() == [3, 2]
