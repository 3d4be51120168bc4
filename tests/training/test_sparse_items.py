from collections.abc import Iterator
from dataclasses import replace
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
from batchrec.training.holdout import Split, hold_out
from batchrec.training.loop import fit
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


def split() -> Split:
    histories = indexed(*([2 + (user + place) % N_ITEMS for place in range(5)] for user in range(20)))
    return hold_out(histories, 5, longs(range(20)))


def batches(objective: Objective) -> Iterator[Batch]:
    shape = small_encoder(SIZE, objective=objective).shape
    return draw_batches(split().training, SIZE, shape, SPARSE, np.random.default_rng(5))


def new_trainer(objective: Objective) -> tuple[Trainer, Encoder]:
    encoder = small_encoder(SIZE, objective=objective, dropout=0.0)
    return Trainer(encoder, replace(SPARSE, objective=objective)), encoder


@pytest.mark.parametrize(
    ("n_items", "options", "n_processes", "expected"),
    [
        (500_000, {}, 1, True),
        (499_999, {}, 1, False),
        (500_000, {"negatives": 0}, 1, False),
        (500_000, {"negatives": 10}, 1, True),
        (500_000, {}, 2, False),
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


@given(st.lists(st.tuples(st.sets(st.integers(2, 11), min_size=1), st.floats(0.1, 0.998)), max_size=12), st.data())
def test_lazy_items_equal_dense_adam_and_an_average_of_every_step(
    steps: list[tuple[set[int], float]], data: st.DataObject
) -> None:
    encoder, averaged, plain = (small_encoder() for _ in range(3))
    items, generator = SparseItems(encoder, averaged), torch.Generator().manual_seed(1)
    weights = [plain.get_parameter(name) for name in ITEM_WEIGHTS]
    optimizer = torch.optim.Adam(weights, lr=0.1, betas=(0.0, 0.999))
    averages = [weight.detach().clone() for weight in weights]
    for touched, decay in steps:
        rows = sorted(touched)
        batch = Batch(np.array([rows], np.int32), np.array([rows], np.int32), longs(rows))
        numbered, gathered = items.gather(batch)
        assert numbered.negatives is not None
        assert numbered.tokens.tolist() == numbered.labels.tolist() == [numbered.negatives.tolist()]
        for name, weight in zip(ITEM_WEIGHTS, weights, strict=True):
            # PAD and MASK are always among the rows.
            assert torch.equal(gathered[name][numbered.negatives], encoder.get_parameter(name)[rows])
            gathered[name].grad = torch.randn(gathered[name].shape, generator=generator)
            weight.grad = torch.zeros_like(weight).index_copy_(0, torch.tensor([0, 1, *rows]), gathered[name].grad)
        items.step(gathered, 0.1)
        items.move_averages(decay)
        optimizer.step()
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight.detach(), 1 - decay)
        if data.draw(st.booleans()):
            items.settle()
    items.settle()
    for name, weight, average in zip(ITEM_WEIGHTS, weights, averages, strict=True):
        assert torch.allclose(encoder.get_parameter(name), weight, rtol=1e-4, atol=1e-5)
        assert torch.allclose(averaged.get_parameter(name), average, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("sparse_steps")
def test_a_resumed_training_equals_an_uninterrupted_one(objective: Objective, tmp_path: Path) -> None:
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


@pytest.mark.usefixtures("sparse_steps", "no_export")
def test_what_always_follows_is_learned_by_sparse_steps(tmp_path: Path) -> None:
    config = replace(LEARNING, negatives=10, blend="none")
    report = train(succession_sequences(), config, tmp_path / "model")
    assert report.ndcg_at_10 > 0.95
    assert report.popularity_ndcg_at_10 < 0.5
