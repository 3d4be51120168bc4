from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrec.batching import (
    Histories,
    draw_windows,
    length_sorted,
    mask_places,
    next_item_tokens,
    pad,
    seen_pairs,
    spans,
)
from batchrec.schemas import MASK, PAD
from batchrec.vocabulary import Vocabulary
from tests.models import indexed

items = st.integers(2, 30)
many_histories = st.lists(st.lists(items, max_size=12), min_size=1, max_size=8)
lengths_lists = st.lists(st.integers(1, 12), min_size=1, max_size=20)


def longs(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=8))
def test_spans_are_ranges_one_after_another(ranges: list[tuple[int, int]]) -> None:
    found = spans(longs([start for start, _ in ranges]), longs([length for _, length in ranges]))
    assert found.tolist() == [place for start, length in ranges for place in range(start, start + length)]


@given(st.data(), st.integers(0, 2))
def test_pad_lays_spans_out_as_rows(data: st.DataObject, n_extra: int) -> None:
    line = np.arange(2, 22, dtype=np.int32)
    chosen = data.draw(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=6))
    tokens = pad(line, longs([start for start, _ in chosen]), longs([length for _, length in chosen]), n_extra)
    rows = [line.tolist()[start : start + length] for start, length in chosen]
    width = max(map(len, rows), default=0) + n_extra
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [row + [PAD] * (width - len(row)) for row in rows]


@given(many_histories, st.integers(2, 9), st.data())
def test_next_item_tokens_are_the_newest_items_and_a_mask(
    histories: list[list[int]], max_len: int, data: st.DataObject
) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), min_size=1, max_size=10))
    tokens = next_item_tokens(indexed(*histories), longs(users), max_len)
    rows = [[*histories[user][-(max_len - 1) :], MASK] for user in users]
    width = max(map(len, rows))
    assert tokens.shape[1] <= max_len
    assert tokens.tolist() == [row + [PAD] * (width - len(row)) for row in rows]


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
def test_length_sorted_batches_hold_each_user_once_and_rise_in_length(lengths: list[int], batch_size: int) -> None:
    batches = [batch.tolist() for batch in length_sorted(longs(lengths), batch_size)]
    order = [row for batch in batches for row in batch]
    assert order == sorted(range(len(lengths)), key=lambda row: lengths[row])
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)


@given(many_histories, st.integers(2, 5), st.integers(0, 9))
def test_windows_are_pieces_of_one_history_and_cover_its_length(
    histories: list[list[int]], max_len: int, seed: int
) -> None:
    table = indexed(*histories)
    starts, lengths = draw_windows(table, max_len, np.random.default_rng(seed))
    windows = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    for history, (start, end) in zip(histories, pairwise(table.offsets.tolist()), strict=True):
        own = [window for window in windows if start <= window[0] < end]
        assert all(length == min(len(history), max_len) and first + length <= end for first, length in own)
        assert len(own) == -(-len(history) // max_len)
        if history:
            assert (end - min(len(history), max_len), min(len(history), max_len)) in own
    assert len(windows) == sum(-(-len(history) // max_len) for history in histories)


@given(many_histories, st.integers(2, 5), st.integers(1, 60))
def test_few_windows_are_drawn_several_times_over(histories: list[list[int]], max_len: int, least: int) -> None:
    assume(any(histories))
    table = indexed(*histories)
    n_windows = sum(-(-len(history) // max_len) for history in histories)
    starts, lengths = draw_windows(table, max_len, np.random.default_rng(0), least)
    n_passes = len(starts) // n_windows
    assert least <= len(starts) == n_passes * n_windows < least + n_windows
    windows = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    for history, end in zip(histories, table.offsets[1:].tolist(), strict=True):
        if history:
            newest = (end - min(len(history), max_len), min(len(history), max_len))
            assert windows.count(newest) >= n_passes
            own = [start for start, _ in windows if end - len(history) <= start < end]
            assert len(own) == n_passes * -(-len(history) // max_len)


def test_windows_reach_every_part_of_a_long_history() -> None:
    generator = np.random.default_rng(0)
    table = indexed(range(2, 32))
    starts = {int(start) for _ in range(200) for start in draw_windows(table, 10, generator)[0]}
    assert starts == set(range(21))


@given(lengths_lists, st.floats(0.01, 0.99), st.floats(0, 0.99), st.integers(0, 9))
def test_every_row_has_a_masked_place_and_none_in_its_padding(
    lengths: list[int], mask_prob: float, last_mask_prob: float, seed: int
) -> None:
    masked = mask_places(longs(lengths), mask_prob, last_mask_prob, np.random.default_rng(seed))
    assert masked.shape == (len(lengths), max(lengths))
    for row, length in zip(masked.tolist(), lengths, strict=True):
        assert any(row[:length])
        assert not any(row[length:])


def test_the_share_of_masked_places_is_mask_prob() -> None:
    lengths = longs([50] * 2000)
    masked = mask_places(lengths, 0.3, 0.0, np.random.default_rng(1))
    assert masked.mean() == pytest.approx(0.3, abs=0.01)
    # Every place alike, the last one too.
    assert masked.mean(axis=0) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_the_last_place_alone_is_masked_in_a_share_of_the_rows(share: float) -> None:
    lengths = longs([30, 50] * 2000)
    masked = mask_places(lengths, 0.5, share, np.random.default_rng(2))
    rows = np.arange(len(lengths))
    last_alone = masked[rows, lengths - 1] & (masked.sum(axis=1) == 1)
    assert last_alone.mean() == pytest.approx(share, abs=0.03)


def test_one_generator_state_gives_one_draw() -> None:
    lengths = longs([5, 9, 2])
    one, other = (mask_places(lengths, 0.3, 0.2, np.random.default_rng(3)) for _ in range(2))
    assert (one == other).all()


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
