"""Training steps: AdamW on the item loss, with warm-up and a running average of the weights.

Of many items a step moves only those that it touches (sparse_items.py).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeVar, cast
from weakref import WeakMethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel

from batchrec.config import TrainingConfig
from batchrec.errors import ConfigError
from batchrec.training.cuda_graphs import CudaGraphs, GraphedFunction
from batchrec.training.default_sizes import has_sparse_steps
from batchrec.training.distributed import ProcessGroup
from batchrec.training.encoder import Encoder
from batchrec.training.few_shapes import in_few_shapes
from batchrec.training.loss import ItemLoss
from batchrec.training.sparse_items import ITEM_WEIGHTS, SparseItems
from batchrec.training.windows import Batch

Result = TypeVar("Result")
Tensors = tuple[Tensor, ...] | list[Tensor]

_MAX_GRADIENT_NORM = 5.0
# The average covers about the last 500 steps.
_AVERAGE_DECAY = 0.998


@dataclass(frozen=True)
class TrainerState:
    """The state of a trainer: tensors as arrays, by name, and the schedule as JSON values."""

    arrays: dict[str, NDArray[Any]]
    schedule: dict[str, Any]


class Trainer:
    """An encoder in training, with its optimizer, its schedule and the average of its weights."""

    def __init__(self, encoder: Encoder, config: TrainingConfig, group: ProcessGroup = ProcessGroup()) -> None:
        self._encoder = encoder
        self._group = group
        self._device = encoder.item_biases.device
        self._dtype = _matrix_dtype(self._device, config)
        item_loss = ItemLoss(encoder)
        self._loss_at_places = item_loss.at_places
        self._item_loss = group.data_parallel(item_loss)
        is_sparse = has_sparse_steps(config, encoder.item_biases.numel(), group.size)
        # Whether each weight is moved whole in every step.
        self._is_dense = [not (is_sparse and name in ITEM_WEIGHTS) for name, _ in encoder.named_parameters()]
        # Decay matrices only: shrinking biases and norm scales does not regularise.
        matrices = [weight for weight in self._dense(encoder.parameters()) if weight.dim() > 1]
        others = [weight for weight in self._dense(encoder.parameters()) if weight.dim() <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            fused=True,
        )
        self._warm_up = torch.optim.lr_scheduler.LinearLR(
            self._optimizer, start_factor=1 / (config.warmup_steps + 1), total_iters=config.warmup_steps
        )
        self._decay: torch.optim.lr_scheduler.LinearLR | None = None
        self._average = AveragedModel(encoder, multi_avg_fn=_weakly(self._move_averages)).requires_grad_(False)
        # The first update only copies: the average starts from the weights before the first step.
        self._average.update_parameters(encoder)
        self._items = SparseItems(encoder, cast(Encoder, self._average.module)) if is_sparse else None
        self._graphed: GraphedFunction | None = None
        if self._device.type == "cuda" and group.size == 1 and not is_sparse:
            self._graphed = GraphedFunction(_weakly(self._learn_even), self._device, CudaGraphs())

    def decay_over(self, n_steps: int) -> None:
        """Let the learning rate fall to 0 over the next steps. The state to resume from does not hold this."""
        self._decay = torch.optim.lr_scheduler.LinearLR(
            self._optimizer, start_factor=1.0, end_factor=0.0, total_iters=n_steps
        )

    @property
    def averaged(self) -> Encoder:
        """Return the encoder with the averaged weights."""
        if self._items is not None:
            self._items.settle()
        return cast(Encoder, self._average.module)

    def take_steps(self, batches: Iterable[Batch], ends_after: Callable[[int], bool] = lambda _: False) -> float:
        """Take a step for every batch until `ends_after(steps)` is true, and return the mean of their losses.

        Raises ConfigError if no batch has a window for each process.
        """
        self._encoder.train()
        total, n_steps = torch.zeros((), device=self._device), 0
        for batch in batches:
            # A batch with fewer windows than processes would leave a process without work.
            if len(batch.tokens) >= self._group.size:
                total += self._step(batch)
                n_steps += 1
                if ends_after(n_steps):
                    break
        if n_steps == 0:
            raise ConfigError(
                f"{self._group.size} processes share batches of fewer windows than that. Start fewer processes"
            )
        return float(self._group.all_reduce(total)) / n_steps

    def state(self) -> TrainerState:
        """Return the state to resume from; the arrays may share memory with the tensors."""
        states = self._optimizer.state_dict()["state"]
        tensors = {f"encoder.{name}": weight for name, weight in self._encoder.state_dict().items()}
        tensors |= {f"averaged.{name}": weight for name, weight in self.averaged.state_dict().items()}
        tensors |= {f"adamw.{i}.{name}": value for i, state in states.items() for name, value in state.items()}
        if self._items is not None:
            tensors |= {f"items.{name}": value for name, value in self._items.state().items()}
        schedule = {
            "n_steps": int(self._average.n_averaged) - 1,
            "warm_up": self._warm_up.state_dict(),
            # The schedule computes each rate from the one before; computed from scratch it differs in the last bit.
            "learning_rates": [group["lr"] for group in self._optimizer.param_groups],
        }
        return TrainerState({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, schedule)

    def restore(self, state: TrainerState) -> None:
        """Resume from the state of a trainer with the same encoder, config and number of processes."""
        self._encoder.load_state_dict(tensors_of(state.arrays, "encoder."))
        self.averaged.load_state_dict(tensors_of(state.arrays, "averaged."))
        optimizer = self._optimizer.state_dict()
        optimizer["state"] = {}
        for name, value in tensors_of(state.arrays, "adamw.").items():
            index, _, key = name.partition(".")
            optimizer["state"].setdefault(int(index), {})[key] = value
        for group, rate in zip(optimizer["param_groups"], state.schedule["learning_rates"], strict=True):
            group["lr"] = rate
        self._optimizer.load_state_dict(optimizer)
        self._warm_up.load_state_dict(state.schedule["warm_up"])
        self._average.n_averaged.fill_(state.schedule["n_steps"] + 1)
        if self._items is not None:
            self._items.restore(tensors_of(state.arrays, "items."), state.schedule["n_steps"])

    def _step(self, batch: Batch) -> Tensor:
        """Take a step and return this process's share of the loss."""
        if self._graphed is None:
            loss, gathered = self._learn(batch)
        else:
            loss, gathered = self._graphed(*in_few_shapes(batch, self._encoder.shape.max_len))[0], {}
        self._optimizer.step()
        if self._items is not None:
            self._items.step(gathered, self._optimizer.param_groups[0]["lr"])
        self._warm_up.step()
        if self._decay is not None:
            self._decay.step()
        self._average.update_parameters(self._encoder)
        return loss

    def _learn(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute gradients; return this process's share of the loss, and the weights of items that were gathered."""
        mine = batch.share(self._group.rank, self._group.size)
        gathered: dict[str, Tensor] = {}
        if self._items is not None:
            mine, gathered = self._items.gather(mine)
        tokens, labels, negatives, weights = (
            None if array is None else torch.from_numpy(array).to(self._device)
            for array in (mine.tokens, mine.labels, mine.negatives, mine.weights)
        )
        with self._autocast():
            of_items = {f"encoder.{name}": weight for name, weight in gathered.items()}
            mean: Tensor = functional_call(self._item_loss, of_items, (tokens, labels, negatives, weights))
            loss = mean * (mine.n_labels / batch.n_labels)
        self._optimizer.zero_grad()
        # DDP averages gradients over the processes, and each loss is a share of the batch's: multiply by their number.
        (loss * self._group.size).backward()
        learned = [*self._dense(self._encoder.parameters()), *gathered.values()]
        nn.utils.clip_grad_norm_(learned, _MAX_GRADIENT_NORM)
        return loss.detach(), gathered

    def _learn_even(self, *batch: Any) -> Tensor:
        """Compute gradients, always in the same memory, from the tensors of an EvenBatch.

        Returns the loss and the norm of the gradients, (2,).
        """
        self._optimizer.zero_grad(set_to_none=False)
        with self._autocast():
            loss = self._loss_at_places(*batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._encoder.parameters(), _MAX_GRADIENT_NORM)
        return torch.stack([loss.detach(), norm])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)

    def _move_averages(self, averages: Tensors, weights: Tensors, _: object) -> None:
        """Move the averages towards the weights: fast at first, because the first weights are poor."""
        # The argument is a copy of this count on the weights' device: reading it would wait for a GPU.
        n_steps = int(self._average.n_averaged)
        decay = min(_AVERAGE_DECAY, n_steps / (n_steps + 9))
        torch._foreach_lerp_(self._dense(averages), self._dense(weights), 1 - decay)
        if self._items is not None:
            self._items.move_averages(decay)

    def _dense(self, weights: Iterable[Tensor]) -> list[Tensor]:
        """Return the weights that are moved whole in every step, of weights in the order of the encoder's."""
        return list(compress(weights, self._is_dense))


def _weakly(method: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function that calls a method and does not keep its object: gigabytes, in a circle of references."""
    weak = WeakMethod(method)

    def call(*given: object) -> Result:
        alive = weak()
        assert alive is not None  # noqa: S101 - the object itself calls it
        return alive(*given)

    return call


def tensors_of(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, Tensor]:
    """Copy the arrays whose names begin with a prefix into CPU tensors, named without the prefix."""
    return {
        name.removeprefix(prefix): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _matrix_dtype(device: torch.device, config: TrainingConfig) -> torch.dtype:
    """Choose the dtype of matrix products; `auto` is bf16 if the device has instructions for it."""
    if device.type == "cuda":
        is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        processor = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        is_fast = bool(processor.get("avx512_bf16") or processor.get("amx_bf16"))
    is_bf16 = config.precision == "bf16" or (config.precision == "auto" and is_fast)
    return torch.bfloat16 if is_bf16 else torch.float32
