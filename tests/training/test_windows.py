from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batchrec.config import Objective, TrainingConfig
from batchrec.model.batching import Histories
from batchrec.tables.schemas import FIRST_ITEM, MASK, PAD
from batchrec.training.windows import Batch, draw_batches, draw_windows, mask_items, mask_places, next_item_labels
from tests.support.models import OBJECTIVES, SHAPE, examples, indexed, longs, tokens_of

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
def test_few_windows_are_drawn_repeatedly(histories: list[list[int]], max_len: int, least: int) -> None:
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
    # Every place equally, including the last one.
    assert masked.mean(axis=0) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_only_the_last_place_is_masked_in_a_share_of_the_rows(share: float) -> None:
    lengths = longs([30, 50] * 2000)
    masked = mask_places(lengths, 0.5, share, np.random.default_rng(2))
    rows = np.arange(len(lengths))
    last_alone = masked[rows, lengths - 1] & (masked.sum(axis=1) == 1)
    assert last_alone.mean() == pytest.approx(share, abs=0.03)


def test_one_generator_state_gives_one_draw() -> None:
    lengths = longs([5, 9, 2])
    one, other = (mask_places(lengths, 0.3, 0.2, np.random.default_rng(3)) for _ in range(2))
    assert (one == other).all()


def test_a_history_that_is_too_short_gives_no_window() -> None:
    starts, lengths = draw_windows(indexed([2], [3, 4], [], [5, 6, 7]), 9, np.random.default_rng(0), min_length=2)
    assert (starts.tolist(), lengths.tolist()) == ([1, 3], [2, 3])


@given(st.lists(st.lists(items, min_size=2, max_size=9), min_size=1, max_size=6))
def test_each_place_but_the_last_is_labelled_with_the_next_item(rows: list[list[int]]) -> None:
    tokens, labels = next_item_labels(tokens_of(*rows).numpy())
    assert (tokens.tolist(), labels.tolist()) == (
        tokens_of(*[row[:-1] for row in rows]).tolist(),
        tokens_of(*[row[1:] for row in rows]).tolist(),
    )
    assert tokens.dtype == labels.dtype == np.int32


@given(st.lists(st.lists(items, min_size=1, max_size=9), min_size=1, max_size=6), st.data())
def test_a_masked_item_is_the_label_of_its_place(rows: list[list[int]], data: st.DataObject) -> None:
    hidden = [data.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row))) for row in rows]
    places = tokens_of(*[[int(is_hidden) for is_hidden in row] for row in hidden]).numpy() == 1
    tokens, labels = mask_items(tokens_of(*rows).numpy(), places)
    pairs = [list(zip(row, is_hidden, strict=True)) for row, is_hidden in zip(rows, hidden, strict=True)]
    shown = [[MASK if is_hidden else item for item, is_hidden in row] for row in pairs]
    wanted = [[item if is_hidden else PAD for item, is_hidden in row] for row in pairs]
    assert (tokens.tolist(), labels.tolist()) == (tokens_of(*shown).tolist(), tokens_of(*wanted).tolist())
    assert tokens.dtype == labels.dtype == np.int32


SIZE = 31


def epoch_of(
    histories: Histories, objective: Objective, max_len: int = 20, seed: int = 0, **options: Any
) -> list[Batch]:
    config = TrainingConfig(**{"objective": objective, "min_epoch_steps": 1, **options})
    shape = replace(SHAPE, objective=objective, max_len=max_len)
    return list(draw_batches(histories, SIZE, shape, config, np.random.default_rng(seed)))


def predicted(batches: Iterable[Batch]) -> Counter[tuple[int, ...]]:
    """The items before each label of the causal objective, and the label."""
    return Counter(
        (*tokens[: place + 1], label)
        for batch in batches
        for tokens, labels in zip(batch.tokens.tolist(), batch.labels.tolist(), strict=True)
        for place, label in enumerate(labels)
        if label != PAD
    )


@given(many_histories, st.integers(1, 5), st.integers(0, 9))
def test_each_item_after_the_first_is_predicted_once(histories: list[list[int]], batch_size: int, seed: int) -> None:
    n_windows = sum(len(history) > 1 for history in histories)
    assume(n_windows)
    batches = epoch_of(indexed(*histories), "causal", seed=seed, batch_size=batch_size)
    n_passes = -(-batch_size // n_windows)
    once = Counter(tuple(history[: end + 1]) for history in histories for end in range(1, len(history)))
    assert predicted(batches) == Counter({prefix: n_passes * count for prefix, count in once.items()})
    assert sum(batch.n_labels for batch in batches) == n_passes * sum(once.values())
    assert all(len(batch.tokens) <= batch_size for batch in batches)


def test_items_of_long_histories_are_predicted_from_max_len_items() -> None:
    history = list(range(2, 27))
    seen: Counter[tuple[int, ...]] = Counter()
    for seed in range(40):
        batches = epoch_of(indexed(history), "causal", max_len=6, seed=seed, batch_size=2)
        assert all(batch.tokens.shape[1] <= 6 for batch in batches)
        drawn = predicted(batches)
        assert drawn[tuple(history[-7:])] >= 1
        seen += drawn
    assert {span[-1] for span in seen} == set(history[1:])
    assert all(span == tuple(range(span[0], span[-1] + 1)) and len(span) <= 7 for span in seen)


@given(many_histories, st.integers(2, 9), st.integers(1, 5), st.integers(0, 9))
def test_masked_batches_are_windows_with_hidden_items(
    histories: list[list[int]], max_len: int, batch_size: int, seed: int
) -> None:
    assume(any(histories))
    for batch in epoch_of(indexed(*histories), "masked", max_len, seed=seed, batch_size=batch_size):
        assert batch.tokens.shape == batch.labels.shape
        assert batch.tokens.shape[1] <= max_len
        assert ((batch.labels != PAD) == (batch.tokens == MASK)).all()
        assert (batch.labels != PAD).any(axis=1).all()
        for row in np.where(batch.labels == PAD, batch.tokens, batch.labels).tolist():
            window = [item for item in row if item != PAD]
            assert row == window + [PAD] * (len(row) - len(window))
            assert any(
                window == history[start : start + len(window)] and len(window) == min(len(history), max_len)
                for history in histories
                for start in range(len(history))
            )


@settings(max_examples=examples(40))
@given(many_histories, st.integers(2, 9), st.booleans(), st.integers(0, 9))
def test_each_label_has_the_weight_of_its_event(
    histories: list[list[int]], max_len: int, ties: bool, seed: int
) -> None:
    assume(sum(len(history) > 1 for history in histories))
    # An item weighs what it is, so that a weight can be recognised wherever the item ends up.
    table = indexed(*histories)
    weighed = replace(
        table, weights=table.items.astype(np.float32), ties=np.full(len(table.items), True) if ties else None
    )
    mean = np.mean([item for history in histories for item in history])
    for objective in OBJECTIVES:
        plain = epoch_of(replace(weighed, weights=None), objective, max_len, seed, batch_size=3)
        for batch, other in zip(epoch_of(weighed, objective, max_len, seed, batch_size=3), plain, strict=True):
            assert batch.tokens.tolist() == other.tokens.tolist()
            assert batch.labels.tolist() == other.labels.tolist()
            assert other.weights is None
            assert batch.weights is not None
            assert batch.weights.dtype == np.float32
            is_label = batch.labels != PAD
            assert batch.weights[is_label] == pytest.approx(batch.labels[is_label] / mean, rel=1e-5)


def test_each_batch_draws_new_negatives_from_all_items() -> None:
    batches = epoch_of(indexed(*([2, 3, 4] for _ in range(60))), "causal", batch_size=2, negatives=5)
    drawn = []
    for batch in batches:
        assert batch.negatives is not None
        assert batch.negatives.dtype == np.int64
        drawn.append(batch.negatives.tolist())
    assert all(len(set(negatives)) == 5 and negatives == sorted(negatives) for negatives in drawn)
    assert {item for negatives in drawn for item in negatives} == set(range(FIRST_ITEM, SIZE))
    assert len({tuple(negatives) for negatives in drawn}) > 0.9 * len(drawn)


@pytest.mark.parametrize("negatives", [0, SIZE - FIRST_ITEM, 1000, None])
def test_no_negatives_are_drawn_if_all_items_are_scored(negatives: int | None) -> None:
    (batch,) = epoch_of(indexed([2, 3, 4]), "causal", batch_size=1, negatives=negatives)
    assert batch.negatives is None


@given(st.integers(1, 9), st.integers(1, 4))
def test_shares_of_a_batch_cover_each_window_once(n_windows: int, n_processes: int) -> None:
    tokens = np.arange(2, 2 + 3 * n_windows, dtype=np.int32).reshape(n_windows, 3)
    labels = np.where(tokens % 2, tokens, PAD).astype(np.int32)
    batch = Batch(tokens, labels, longs([3, 5]), labels.astype(np.float32))
    shares = [batch.share(rank, n_processes) for rank in range(n_processes)]
    rows = [row for share in shares for row in np.hstack([share.tokens, share.labels]).tolist()]
    assert sorted(rows) == np.hstack([tokens, labels]).tolist()
    assert sum(share.n_labels for share in shares) == batch.n_labels
    assert all(share.weights is not None and share.weights.tolist() == share.labels.tolist() for share in shares)
    assert all(share.negatives is batch.negatives for share in shares)
    assert max(len(share.tokens) for share in shares) - min(len(share.tokens) for share in shares) <= 1


def test_one_seed_draws_one_epoch_and_another_seed_another(objective: Objective) -> None:
    histories = indexed(*(range(2 + user, 12 + user) for user in range(12)))
    one, again, other = (
        [(batch.tokens.tolist(), batch.labels.tolist()) for batch in epoch_of(histories, objective, 4, seed)]
        for seed in (1, 1, 2)
    )
    assert one == again != other
