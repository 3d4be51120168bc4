from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchrec.config import EncoderShape, TrainingConfig
from batchrec.model.batching import Histories
from batchrec.training.default_sizes import batch_size, encoder_shape, n_negatives
from tests.support.models import names_in, run_cli, training_sequences


def histories_of(*lengths: int) -> Histories:
    return Histories(np.full(sum(lengths), 2, np.int32), np.cumsum([0, *lengths], dtype=np.int64))


@pytest.mark.parametrize(
    ("lengths", "options", "max_len"),
    [
        ([3] * 10, {}, 16),
        ([16] * 10, {}, 16),
        ([40] * 10, {}, 40),
        ([1] * 9 + [90], {}, 90),
        ([1] * 89 + [50, 60, 70, 80, 90, 91, 92, 93, 94, 95, 96], {}, 60),
        ([5000] * 10, {}, 200),
        ([5000] * 10, {"max_len": 7}, 7),
        ([3] * 10, {"max_len": 300}, 300),
    ],
)
def test_default_windows_hold_9_in_10_histories_whole(
    lengths: list[int], options: dict[str, Any], max_len: int
) -> None:
    assert encoder_shape(TrainingConfig(**options), histories_of(*lengths)).max_len == max_len


@pytest.mark.parametrize(
    ("n_events", "options", "hidden_size"),
    [(10, {}, 64), (4_999_999, {}, 64), (5_000_000, {}, 128), (5_000_000, {"hidden_size": 32}, 32)],
)
def test_many_events_make_a_wide_model(n_events: int, options: dict[str, Any], hidden_size: int) -> None:
    assert encoder_shape(TrainingConfig(**options), histories_of(n_events)).hidden_size == hidden_size


@pytest.mark.parametrize(
    ("n_events", "options", "dropout"),
    [
        (10, {}, 0.3),
        (499_999, {}, 0.3),
        (500_000, {}, 0.2),
        (10, {"dropout": 0.0}, 0.0),
        (500_000, {"dropout": 0.5}, 0.5),
    ],
)
def test_small_logs_are_trained_with_more_dropout(n_events: int, options: dict[str, Any], dropout: float) -> None:
    assert encoder_shape(TrainingConfig(**options), histories_of(n_events)).dropout == dropout


def test_the_other_sizes_are_the_options() -> None:
    config = TrainingConfig(objective="masked", n_layers=3, n_heads=4, dropout=0.4)
    assert encoder_shape(config, histories_of(1, 2)) == EncoderShape("masked", 16, 64, 3, 4, 0.4)


@pytest.mark.parametrize(
    ("n_histories", "length", "max_len", "size"),
    [
        (10, 5, 20, 16),
        (2048, 5, 20, 16),
        (2048, 21, 20, 32),
        (12800, 20, 20, 100),
        (128 * 256, 1, 20, 256),
        (100_000, 1, 20, 256),
    ],
)
def test_default_batch_size_gives_at_least_128_steps(n_histories: int, length: int, max_len: int, size: int) -> None:
    histories = histories_of(*[length] * n_histories)
    assert batch_size(TrainingConfig(), histories, max_len) == size
    assert batch_size(TrainingConfig(batch_size=7), histories, max_len) == 7


@pytest.mark.parametrize(
    ("negatives", "n_items", "expected"),
    [
        (None, 10, 0),
        (None, 5_000, 0),
        (None, 5_001, 3_000),
        (None, 1_000_000, 3_000),
        (0, 1_000_000, 0),
        (500, 1_000_000, 500),
        (9, 10, 9),
        (10, 10, 0),
        (11, 10, 0),
    ],
)
def test_large_vocabularies_are_trained_with_sampled_negatives(
    negatives: int | None, n_items: int, expected: int
) -> None:
    assert n_negatives(TrainingConfig(negatives=negatives), n_items + 2) == expected


def test_heads_that_do_not_divide_the_chosen_hidden_size_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--sequences", training_sequences(), "--out", tmp_path / "model", "--device", "cpu")
    assert run_cli("train", *arguments, "--n-heads", 3) == 2
    assert "batchrec: error: --n-heads 3: expected a divisor of the hidden size 64" in capsys.readouterr().err
    assert names_in(tmp_path) == set()
