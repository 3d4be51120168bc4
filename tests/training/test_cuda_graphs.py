"""Training steps as CUDA graphs, tested without a GPU: instead of a replay, the function is called again."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchrec.config import Objective, TrainingConfig
from batchrec.model.batching import Histories
from batchrec.training import trainer as trainers
from batchrec.training.cuda_graphs import GraphedFunction
from batchrec.training.encoder import Encoder
from batchrec.training.few_shapes import in_few_shapes
from batchrec.training.loss import ItemLoss
from batchrec.training.trainer import Trainer
from batchrec.training.windows import Batch, draw_batches
from tests.support.models import indexed, small_encoder
from tests.support.params import masked_is_slow

Replay = Callable[[], Tensor]

N_ITEMS, MAX_LEN = 60, 40
CPU = torch.device("cpu")
CONFIG = TrainingConfig(batch_size=4, negatives=20, min_epoch_steps=12, learning_rate=0.01, precision="fp32")


def histories(*, weighs: bool) -> Histories:
    generator = np.random.default_rng(0)
    table = indexed(*(generator.integers(2, 2 + N_ITEMS, n).tolist() for n in (2, 3, 15, 16, 17, 31, 33, 38, 40, 41)))
    weights = generator.choice([0, 0.5, 3], len(table.items)).astype(np.float32) if weighs else None
    return Histories(table.items, table.offsets, weights=weights)


def encoder_of(objective: Objective) -> Encoder:
    return small_encoder(2 + N_ITEMS, objective=objective, max_len=MAX_LEN, dropout=0.0).train()


def batches_of(encoder: Encoder, *, weighs: bool) -> list[Batch]:
    table = histories(weighs=weighs)
    return list(draw_batches(table, 2 + N_ITEMS, encoder.shape, CONFIG, np.random.default_rng(1)))


def tensors(*arrays: NDArray[Any] | None) -> list[Any]:
    return [None if array is None else torch.from_numpy(array) for array in arrays]


def gradients(encoder: Encoder, loss: Tensor) -> dict[str, Tensor]:
    encoder.zero_grad()
    loss.backward()
    return {name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("weighs", [False, True])
def test_a_batch_in_few_shapes_has_the_same_loss_and_gradients(objective: Objective, weighs: bool) -> None:
    encoder, shapes = encoder_of(objective), set()
    loss = ItemLoss(encoder)
    for batch in batches_of(encoder, weighs=weighs):
        even = in_few_shapes(batch, MAX_LEN)
        shapes.add((even.tokens.shape[1], even.labels.shape[1]))
        plain = loss(*tensors(batch.tokens, batch.labels, batch.negatives, batch.weights))
        own = loss.at_places(*tensors(*even))
        assert own.item() == pytest.approx(plain.item(), rel=1e-5)
        expected = gradients(encoder, plain)
        for name, gradient in gradients(encoder, own).items():
            assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-6), name
    assert {length for length, _ in shapes} == {16, 32, 40}
    assert {n_places for _, n_places in shapes} == ({16, 32, 40} if objective == "causal" else {16})


def fails(_: Replay) -> Replay:
    raise RuntimeError("operation not permitted when stream is capturing")


def is_wrong(function: Replay) -> Replay:
    function()
    return lambda: torch.tensor([100.0, 1.0])


@pytest.mark.parametrize(
    ("capture", "warning"),
    [(lambda function: function, None), (fails, "when stream is capturing"), (is_wrong, "other results")],
)
@masked_is_slow
def test_a_trainer_that_replays_takes_the_same_steps(
    objective: Objective,
    capture: Callable[[Replay], Replay],
    warning: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def counted(function: Replay) -> Replay:
        captured.append(function)
        return capture(function)

    captured: list[Replay] = []
    encoders = encoder_of(objective), encoder_of(objective)
    plain, graphed = (Trainer(encoder, CONFIG) for encoder in encoders)
    monkeypatch.setattr(graphed, "_graphed", GraphedFunction(graphed._learn_even, CPU, counted))
    batches = batches_of(encoders[0], weighs=False)
    losses = [trainer.take_steps(batches) for trainer in (plain, graphed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    weights = [encoder.state_dict() for encoder in encoders]
    for name, weight in weights[0].items():
        # A bias of the keys does not change attention: its gradient is rounding noise, which AdamW scales up to steps.
        start = len(weight) // 2 if name.endswith("key_value.bias") else 0
        assert torch.allclose(weights[1][name][start:], weight[start:], rtol=1e-3, atol=1e-4), name
    shapes = [tuple(None if part is None else part.shape for part in in_few_shapes(b, MAX_LEN)) for b in batches]
    assert len(captured) == sum(shapes.count(shape) > 1 for shape in set(shapes)) > 1
    assert all(warning is not None and warning in message for message in caplog.messages)
    assert bool(caplog.messages) == (warning is not None)


def test_graphs_do_not_keep_the_trainer() -> None:
    encoder = encoder_of("causal")
    trainer = Trainer(encoder, CONFIG)
    graphed = GraphedFunction(trainers._weakly(trainer._learn_even), CPU, lambda function: function)
    for batch in batches_of(encoder, weighs=False)[:4] * 2:
        graphed(*in_few_shapes(batch, MAX_LEN))
    trainer._graphed = graphed
    alive = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert alive() is None
    finally:
        gc.enable()


def test_a_replay_reads_the_arrays_of_its_call_from_the_same_memory() -> None:
    places = []

    def doubled(values: Tensor, other: Tensor | None) -> Tensor:
        places.append(values.data_ptr())
        assert other is None
        return 2 * values

    function = GraphedFunction(doubled, CPU, lambda captured: captured)
    results = [function(np.full(2, number), None).tolist() for number in range(4)]
    assert results == [[0, 0], [2, 2], [4, 4], [6, 6]]
    # The second call is an ordinary one, a replay that is compared with it, and the replay.
    assert len(set(places[1:])) == 1
    assert len(places) == 6
    assert function(np.arange(3), None).tolist() == [0, 2, 4]


def test_capturing_changes_no_random_number_that_follows() -> None:
    def noisy(values: Tensor) -> Tensor:
        return values + torch.rand(2) / 10

    def plain(values: NDArray[Any]) -> Tensor:
        return noisy(torch.from_numpy(values))

    drawn = []
    for function in (plain, GraphedFunction(noisy, CPU, lambda captured: captured)):
        torch.manual_seed(0)
        drawn.append([function(np.ones(2)).tolist() for _ in range(4)])
    assert drawn[0] == drawn[1]
