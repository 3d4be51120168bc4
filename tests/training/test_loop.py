import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from batchrec.config import Objective, Precision, ScoringConfig, TrainingConfig
from batchrec.scoring.score import score
from batchrec.tables.schemas import PAD
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Accuracy, Split, hold_out
from batchrec.training.loop import Epoch, FitResult, fit
from batchrec.training.loss import ItemLoss
from batchrec.training.windows import Batch, draw_batches
from tests.support.models import (
    CONFIG,
    N_ITEMS,
    SUCCESSIONS,
    assert_training_fails,
    indexed,
    learned_model,
    longs,
    small_encoder,
    succession_sequences,
    trained_model,
    training_histories,
    training_log,
    write_sequences,
)
from tests.support.params import masked_is_slow


@pytest.fixture(autouse=True)
def older_model() -> None:
    """Train the model that all tests share before a test breaks the training."""
    trained_model()


def small_split() -> Split:
    histories = indexed(*([2 + (user + place) % N_ITEMS for place in range(5)] for user in range(20)))
    return hold_out(histories, 5, longs(range(20)))


def fit_with(
    accuracies: Sequence[float], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Encoder, FitResult, list[Tensor]]:
    """Fit with the given NDCG@10 of each epoch; also return the item biases measured after each epoch."""
    encoder, biases = small_encoder(N_ITEMS + 2), []

    def accuracy(measured: Encoder, *_: object) -> Accuracy:
        biases.append(measured.item_biases.detach().clone())
        return Accuracy(accuracies[len(biases) - 1], 1.0)

    monkeypatch.setattr("batchrec.training.loop.encoder_accuracy", accuracy)
    fitted = fit(encoder, small_split(), replace(CONFIG, **options))
    return encoder, fitted, biases


@pytest.mark.parametrize("true", [True, np.True_])
def test_each_epoch_is_told_and_a_callback_that_returns_true_ends_the_training(
    true: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> object:
        told.append(epoch)
        return epoch.epoch == 2 and true

    encoder, accuracies = small_encoder(N_ITEMS + 2), iter([0.3, 0.2, 0.9])
    monkeypatch.setattr("batchrec.training.loop.encoder_accuracy", lambda *_: Accuracy(next(accuracies), 1.0))
    fitted = fit(encoder, small_split(), replace(CONFIG, max_epochs=9), on_epoch=on_epoch)
    assert (fitted.epochs, fitted.best_epoch, fitted.ended_by) == (told, 1, "on_epoch")
    assert [epoch.epoch for epoch in told] == [1, 2]


def test_a_callback_that_returns_something_else_ends_nothing() -> None:
    fitted = fit(small_encoder(N_ITEMS + 2), small_split(), CONFIG, on_epoch=lambda epoch: epoch.epoch)
    assert (fitted.ended_by, len(fitted.epochs)) == ("max_epochs", CONFIG.max_epochs)


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, fitted, biases = fit_with([0.1, 0.3, 0.2, 0.3], monkeypatch, max_epochs=4)
    assert [epoch.ndcg_at_10 for epoch in fitted.epochs] == [0.1, 0.3, 0.2, 0.3]
    assert (fitted.best_epoch, fitted.ended_by) == (2, "max_epochs")
    assert torch.equal(encoder.item_biases, biases[1])
    assert not torch.equal(biases[1], biases[3])


def test_training_stops_when_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fitted, _ = fit_with([0.1, 0.3, 0.2, 0.3, 0.1, 0.9], monkeypatch, max_epochs=6, patience=3)
    assert (len(fitted.epochs), fitted.ended_by) == (5, "patience")


def plain_loss(encoder: Encoder, batch: Batch) -> Tensor:
    labels = torch.from_numpy(batch.labels).long()
    scores = encoder(torch.from_numpy(batch.tokens)) @ encoder.item_embeddings.weight.T + encoder.item_biases
    return F.cross_entropy(scores[labels != PAD], labels[labels != PAD])


def test_an_epoch_is_adamw_with_warm_up_and_averaged_weights(objective: Objective) -> None:
    config = TrainingConfig(
        objective=objective,
        batch_size=4,
        learning_rate=0.01,
        weight_decay=0.1,
        warmup_steps=3,
        max_epochs=1,
        min_epoch_steps=7,
        precision="fp32",
        seed=1,
    )
    encoder, plain = (small_encoder(N_ITEMS + 2, objective=objective, dropout=0.0) for _ in range(2))
    split = small_split()
    (epoch,) = fit(encoder, split, config).epochs

    average = {name: weight.clone() for name, weight in plain.state_dict().items()}
    decayed = [weight for weight in plain.parameters() if weight.dim() > 1]
    free = [weight for weight in plain.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}])
    losses = []
    batches = draw_batches(split.training, N_ITEMS + 2, plain.shape, config, np.random.default_rng([1, 1]))
    for step, batch in enumerate(batches, start=1):
        loss = plain_loss(plain, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1.0, step / 4)
        optimizer.step()
        losses.append(float(loss.detach()))
        for name, weight in plain.state_dict().items():
            average[name] = average[name] * step / (step + 9) + weight * 9 / (step + 9)
    assert len(losses) >= 7
    assert epoch.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    for name, weight in encoder.state_dict().items():
        # A bias of the keys does not change attention: its gradient is rounding noise, which AdamW scales up to steps.
        start = len(weight) // 2 if name.endswith("key_value.bias") else 0
        assert torch.allclose(weight[start:], average[name][start:], rtol=1e-4, atol=1e-5), name


def test_bf16_rounds_computations_but_keeps_fp32_weights(objective: Objective) -> None:
    losses = {}
    for precision in get_args(Precision):
        encoder = small_encoder(N_ITEMS + 2, objective=objective, dropout=0.0)
        config = replace(CONFIG, objective=objective, precision=precision, max_epochs=1, min_epoch_steps=5)
        losses[precision] = fit(encoder, small_split(), config).epochs[0].loss
        assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["auto"] in {losses["fp32"], losses["bf16"]}


def losses_of(losses: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the losses of the epochs by the given ones."""
    given = iter(losses)

    def take_steps(_: object, batches: Iterator[Batch], __: object) -> float:
        assert any(batch.n_labels for batch in batches)
        return next(given)

    monkeypatch.setattr("batchrec.training.trainer.Trainer.take_steps", take_steps)


@pytest.mark.parametrize("losses", [[math.nan], [math.inf], [3.5, math.nan], [5.0, 3.0, 4.5]], ids=str)
def test_a_loss_that_is_not_finite_or_climbs_ends_the_job(
    losses: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    losses_of(losses * 2, monkeypatch)
    said = assert_training_fails(sequences, capsys, 2, "--max-epochs", 5)
    collapse = f"the loss of epoch {len(losses)} is {losses[-1]:g}"
    assert f"--learning-rate 0.001: training has collapsed: {collapse}" in said


def test_a_loss_that_climbs_by_less_than_a_nat_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    losses_of([5.0, 3.0, 3.9, 4.0], monkeypatch)
    _, fitted, _ = fit_with([0.1, 0.2, 0.3, 0.4], monkeypatch, max_epochs=4)
    assert [epoch.loss for epoch in fitted.epochs] == [5.0, 3.0, 3.9, 4.0]


def test_a_step_with_a_loss_of_nan_ends_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    forward = ItemLoss.forward
    monkeypatch.setattr(ItemLoss, "forward", lambda *given: forward(*given) * math.nan)
    assert "is nan, the best before it" in assert_training_fails(sequences, capsys, 2)


@pytest.mark.slow
def test_a_learning_rate_that_ruins_a_good_model_ends_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = Path(shutil.copy(succession_sequences(), tmp_path / "sequences.parquet"))
    learned = ("--init-from", learned_model("causal"), "--hidden-size", 32, "--max-len", 16)
    # The rate rises from near 0, so that the first epochs reach a low loss.
    rising = ("--learning-rate", 1, "--warmup-steps", 1000, "--max-epochs", 300, "--patience", 300)
    said = assert_training_fails(sequences, capsys, 2, *learned, *rising)
    assert "--learning-rate 1.0: training has collapsed: the loss of epoch " in said
    assert "Lower the learning rate, or raise --warmup-steps" in said


@masked_is_slow
def test_what_always_follows_is_learned(objective: Objective, tmp_path: Path) -> None:
    score(
        succession_sequences(),
        learned_model(objective),
        ScoringConfig(top_k=1, device="cpu"),
        tmp_path / "recs.parquet",
    )
    recommended = {row["user_id"]: row["item_id"] for row in pq.read_table(tmp_path / "recs.parquet").to_pylist()}
    assert sum(recommended[user] == items[-1] for user, items in SUCCESSIONS.items()) / len(SUCCESSIONS) > 0.95
    best = max(training_log(learned_model(objective)), key=lambda line: float(line["ndcg_at_10"]))
    assert best["ndcg_at_10"] > 0.95
    assert best["popularity_ndcg_at_10"] < 0.5
