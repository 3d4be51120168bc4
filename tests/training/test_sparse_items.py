import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from batchrec.config import Objective, TrainingConfig
from batchrec.system.checkpoints import CheckpointStore
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.default_sizes import has_sparse_steps
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Accuracy, Split, TrainingPart, hold_out
from batchrec.training.loop import FitResult, fit
from batchrec.training.refit import refit
from batchrec.training.sparse_items import ITEM_WEIGHTS, SparseItems
from batchrec.training.train import train
from batchrec.training.trainer import Trainer
from batchrec.training.windows import Batch, draw_batches
from tests.support.models import CONFIG, LEARNING, N_ITEMS, indexed, longs, small_encoder, succession_sequences

SIZE = N_ITEMS + FIRST_ITEM
SPARSE = replace(CONFIG, negatives=5, batch_size=2, min_epoch_steps=8, dropout=0.3, precision="fp32", max_epochs=4)


@pytest.fixture
def sparse_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all trainings with sampled negatives take sparse steps."""
    monkeypatch.setattr("batchrec.training.default_sizes._MIN_SPARSE_ITEMS", 1)


def split(n_users: int = 20) -> Split:
    histories = indexed(*([2 + (user + place) % N_ITEMS for place in range(5)] for user in range(n_users)))
    return hold_out(histories, 5, longs(range(n_users)))


def batches(objective: Objective) -> Iterator[Batch]:
    shape = small_encoder(SIZE, objective=objective).shape
    return draw_batches(split().training, SIZE, shape, SPARSE, np.random.default_rng(5))


def new_trainer(objective: Objective) -> tuple[Trainer, Encoder]:
    encoder = small_encoder(SIZE, objective=objective, dropout=0.0)
    return Trainer(encoder, replace(SPARSE, objective=objective)), encoder


@pytest.mark.parametrize(
    ("n_items", "options", "n_processes", "expected"),
    [
        (200_000, {}, 1, True),
        (199_999, {}, 1, False),
        (200_000, {"negatives": 0}, 1, False),
        (200_000, {"negatives": 10}, 1, True),
        (200_000, {}, 2, False),
    ],
)
def test_steps_are_sparse_with_many_items_negatives_and_one_process(
    n_items: int, options: dict[str, Any], n_processes: int, expected: bool
) -> None:
    assert has_sparse_steps(TrainingConfig(**options), n_items + FIRST_ITEM, n_processes) == expected


def test_loss_and_gradient_norm_equal_those_of_dense_steps(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    clip = nn.utils.clip_grad_norm_

    def record(*arguments: Any) -> Tensor:
        norms.append(float(clip(*arguments)))
        return torch.tensor(norms[-1])

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", record)
    (dense, _) = new_trainer(objective)
    monkeypatch.setattr("batchrec.training.default_sizes._MIN_SPARSE_ITEMS", 1)
    (sparse, _) = new_trainer(objective)
    batch = next(batches(objective))
    losses = [trainer.take_steps([batch]) for trainer in (dense, sparse)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


@pytest.mark.usefixtures("sparse_steps")
def test_a_step_changes_only_the_items_that_it_touches(objective: Objective) -> None:
    trainer, encoder = new_trainer(objective)
    before = {name: encoder.get_parameter(name).detach().clone() for name in ITEM_WEIGHTS}
    batch = next(batches(objective))
    assert batch.negatives is not None
    trainer.take_steps([batch])
    touched = {*batch.tokens.ravel().tolist(), *batch.labels.ravel().tolist(), *batch.negatives.tolist()}
    untouched = [item for item in range(FIRST_ITEM, SIZE) if item not in touched]
    assert len(untouched) > N_ITEMS / 2
    for name, weight in before.items():
        assert torch.equal(encoder.get_parameter(name)[untouched], weight[untouched])
        moved = encoder.get_parameter(name)[batch.negatives] != weight[batch.negatives]
        assert moved.view(len(batch.negatives), -1).any(dim=1).all()


def adam_by_row(weight: Tensor, gradient: Tensor, moment: Tensor, step: int) -> None:
    """Take a step of 0.1 by Adam with beta1 = 0 and one moment for each row, over all rows."""
    for row, own in enumerate(gradient):
        moment[row] = 0.999 * moment[row] + 0.001 * own.square().mean()
        weight[row] -= 0.1 * own / (torch.sqrt(moment[row] / (1 - 0.999**step)) + 1e-8)


@given(st.lists(st.tuples(st.sets(st.integers(2, 11), min_size=1), st.floats(0.1, 0.998)), max_size=12), st.data())
def test_lazy_items_equal_steps_and_averages_of_all_items(
    steps: list[tuple[set[int], float]], data: st.DataObject
) -> None:
    encoder, averaged = small_encoder(), small_encoder()
    items, generator = SparseItems(encoder, averaged), torch.Generator().manual_seed(1)
    weights = {name: encoder.get_parameter(name).detach().clone() for name in ITEM_WEIGHTS}
    averages = {name: weight.clone() for name, weight in weights.items()}
    moments = {name: torch.zeros(12) for name in ITEM_WEIGHTS}
    for number, (touched, decay) in enumerate(steps, start=1):
        rows = sorted(touched)
        places = np.array([rows], np.int32)
        numbered, gathered = items.gather(Batch(places, places, longs(rows)))
        assert numbered.negatives is not None
        assert [numbered.negatives.tolist()] == numbered.tokens.tolist() == numbered.labels.tolist()
        for name, weight in weights.items():
            assert torch.equal(gathered[name][numbered.negatives], encoder.get_parameter(name)[rows])
            of_rows = torch.randn(gathered[name].shape, generator=generator)
            gathered[name].grad = of_rows
            # PAD and MASK are always among the gathered rows.
            gradient = torch.zeros_like(weight).index_copy_(0, torch.tensor([0, 1, *rows]), of_rows)
            adam_by_row(weight, gradient, moments[name], number)
            averages[name] = averages[name] * decay + weight * (1 - decay)
        items.step(gathered, 0.1)
        items.move_averages(decay)
        if data.draw(st.booleans()):
            items.settle()
    items.settle()
    for name, weight in weights.items():
        assert torch.allclose(encoder.get_parameter(name), weight, rtol=1e-4, atol=1e-5)
        assert torch.allclose(averaged.get_parameter(name), averages[name], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("sparse_steps")
def test_a_resumed_training_equals_an_uninterrupted_one(
    objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last epoch is always the best.
    rising = count()
    monkeypatch.setattr("batchrec.training.loop.encoder_accuracy", lambda *_: Accuracy(next(rising), 1.0))
    checkpoints = CheckpointStore(tmp_path / "progress", b"\1" * 32)
    config = replace(SPARSE, objective=objective)
    whole, stopped, resumed = (small_encoder(SIZE, objective=objective) for _ in range(3))
    fitted = fit(whole, split(), config)
    fit(stopped, split(), replace(config, max_epochs=2), checkpoints=checkpoints)
    again = fit(resumed, split(), config, checkpoints=checkpoints)
    assert [epoch.loss for epoch in again.epochs] == [epoch.loss for epoch in fitted.epochs]
    assert not torch.equal(stopped.item_biases, whole.item_biases)
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name


@pytest.mark.slow
@pytest.mark.usefixtures("sparse_steps", "no_export")
def test_what_always_follows_is_learned_by_sparse_steps(tmp_path: Path) -> None:
    config = replace(LEARNING, negatives=10, blend="none")
    report = train(succession_sequences(), config, tmp_path / "model")
    assert report.ndcg_at_10 > 0.95
    assert report.popularity_ndcg_at_10 < 0.5


@pytest.mark.usefixtures("sparse_steps")
def test_a_refit_takes_sparse_steps_from_the_chosen_model(objective: Objective) -> None:
    # No item is new: new ones start elsewhere.
    whole = split(N_ITEMS)
    part = replace(whole, refit=TrainingPart(whole.training, whole.kept))
    chosen = small_encoder(SIZE, objective=objective)
    before = {name: weight.clone() for name, weight in chosen.state_dict().items()}
    fitted = FitResult([], 1, "max_epochs", Accuracy(0.1, 0.1))
    encoder = refit(chosen, fitted, part, replace(SPARSE, objective=objective, learning_rate=1e-4))
    for name, weight in encoder.state_dict().items():
        assert torch.equal(chosen.state_dict()[name], before[name]), name
        # A step moves a row by 1e-4 in the mean.
        assert 0 < (weight - before[name]).abs().max() < 0.05, name


def test_a_trainer_is_freed_with_its_last_reference() -> None:
    # torch loads modules within the first trainer of a process, which stays until Python collects circles.
    trainers = [Trainer(small_encoder(N_ITEMS + FIRST_ITEM), SPARSE) for _ in range(2)]
    trainers[1].decay_over(3)
    averaged = weakref.ref(trainers[1].averaged)
    gc.disable()
    try:
        trainers.pop()
        assert averaged() is None
    finally:
        gc.enable()
