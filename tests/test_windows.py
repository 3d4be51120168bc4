from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrec.windows import draw_windows, mask_places
from tests.models import indexed, longs

items = st.integers(2, 30)
many_histories = st.lists(st.lists(items, max_size=12), min_size=1, max_size=8)
lengths_lists = st.lists(st.integers(1, 12), min_size=1, max_size=20)


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
