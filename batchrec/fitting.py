"""The training loop: epochs over windows of the histories until held-out items are ranked no better."""

import copy
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.contrib.logging import logging_redirect_tqdm

from batchrec.config import TrainingConfig
from batchrec.encoder import Encoder
from batchrec.errors import ConfigError
from batchrec.holdout import Split, encoder_accuracy, popularity_accuracy
from batchrec.objectives import ItemLoss
from batchrec.processes import Processes
from batchrec.windows import Batch, draw_batches

_log = logging.getLogger(__name__)

_MAX_GRADIENT_NORM = 5.0
# A mean over about the last 500 steps.
_AVERAGE_DECAY = 0.998
# Nats above its best at which a loss is no longer noise: training has come apart.
_COLLAPSE = 1.0


@dataclass(frozen=True)
class Epoch:
    """A line of training.jsonl: the mean loss, and the accuracy on held-out items after the epoch."""

    epoch: int
    loss: float
    ndcg_at_10: float
    hr_at_10: float
    popularity_ndcg_at_10: float
    popularity_hr_at_10: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: loss {self.loss:.4f}, {self.seconds:.1f} s, held out: "
            f"NDCG@10 {self.ndcg_at_10:.4f} (popularity {self.popularity_ndcg_at_10:.4f}), "
            f"HR@10 {self.hr_at_10:.4f} (popularity {self.popularity_hr_at_10:.4f})"
        )


def fit(
    encoder: Encoder,
    split: Split,
    config: TrainingConfig,
    generator: np.random.Generator,
    processes: Processes = Processes(),
) -> list[Epoch]:
    """Train the encoder, and leave it with the averaged weights of the epoch that ranks held-out items best.

    Raises ConfigError where the loss is no longer a number, or climbs back.
    """
    trainer = _Trainer(encoder, config, processes)
    vocabulary_size = encoder.item_biases.numel()
    popularity = popularity_accuracy(split, vocabulary_size)
    epochs: list[Epoch] = []
    best_epoch, best_ndcg, best_weights = 0, -1.0, encoder.state_dict()
    started = time.monotonic()
    while len(epochs) < config.max_epochs and len(epochs) - best_epoch < config.patience:
        epoch_started = time.monotonic()
        number = len(epochs) + 1
        with logging_redirect_tqdm():
            batches = draw_batches(split.training, vocabulary_size, encoder.shape, config, generator)
            loss = trainer.take_steps(batches)
        _check_loss(loss, epochs, config)
        model = processes.from_first(encoder_accuracy(trainer.averaged, split.held_out) if processes.is_first else None)
        seconds = round(time.monotonic() - epoch_started, 3)
        epochs.append(Epoch(number, loss, model.ndcg, model.hit_rate, popularity.ndcg, popularity.hit_rate, seconds))
        _log.info("%s", epochs[-1])
        if model.ndcg > best_ndcg:
            best_epoch, best_ndcg = number, model.ndcg
            best_weights = {name: weight.clone() for name, weight in trainer.averaged.state_dict().items()}
        is_late = config.max_minutes is not None and time.monotonic() - started > 60 * config.max_minutes
        if processes.from_first(is_late):
            break
    encoder.load_state_dict(best_weights)
    return epochs


class _Trainer:
    """An encoder in training, with its optimizer, its schedule and the average of its weights."""

    def __init__(self, encoder: Encoder, config: TrainingConfig, processes: Processes) -> None:
        self._encoder = encoder
        self._processes = processes
        self._device = encoder.item_biases.device
        self._dtype = _matrix_dtype(self._device, config)
        self._item_loss = processes.parallel(ItemLoss(encoder))
        # Decay is for what multiplies: a bias or a scale pulled to 0 is not a simpler one.
        matrices = [weight for weight in encoder.parameters() if weight.dim() > 1]
        others = [weight for weight in encoder.parameters() if weight.dim() <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            fused=True,
        )
        self._warm_up = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1, (step + 1) / (config.warmup_steps + 1))
        )
        self.averaged = copy.deepcopy(encoder).requires_grad_(False)
        self._n_steps = 0

    def take_steps(self, batches: Iterator[Batch]) -> float:
        """Take a step for every batch; gives the mean of their losses."""
        self._encoder.train()
        total, n_steps = torch.zeros((), device=self._device), 0
        for batch in batches:
            # A batch of fewer windows than processes would leave one without work.
            if len(batch.tokens) >= self._processes.size:
                total += self._step(batch)
                n_steps += 1
        return float(self._processes.sum(total)) / n_steps

    def _step(self, batch: Batch) -> Tensor:
        """Take a step; gives this process's part of the loss."""
        mine = batch.share(self._processes.rank, self._processes.size)
        tokens, labels, negatives = (
            None if array is None else torch.from_numpy(array).to(self._device)
            for array in (mine.tokens, mine.labels, mine.negatives)
        )
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            loss: Tensor = self._item_loss(tokens, labels, negatives) * (mine.n_labels / batch.n_labels)
        self._optimizer.zero_grad()
        # The mean of the gradients over the processes is that of the sum of the parts, but for their number.
        (loss * self._processes.size).backward()
        nn.utils.clip_grad_norm_(self._encoder.parameters(), _MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._warm_up.step()
        self._move_average()
        return loss.detach()

    def _move_average(self) -> None:
        """Move the averages towards the weights of the step: fast at first, for the first weights are worth little."""
        self._n_steps += 1
        share = 1 - min(_AVERAGE_DECAY, self._n_steps / (self._n_steps + 9))
        for average, weight in zip(self.averaged.parameters(), self._encoder.parameters(), strict=True):
            average.lerp_(weight.detach(), share)


def _matrix_dtype(device: torch.device, config: TrainingConfig) -> torch.dtype:
    """Choose what matrices are multiplied in: bf16 where the device has instructions for it."""
    capabilities = torch.cpu.get_capabilities()
    is_fast = device.type == "cuda" or (
        device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    )
    is_bf16 = config.precision == "bf16" or (config.precision == "auto" and is_fast)
    return torch.bfloat16 if is_bf16 else torch.float32


def _check_loss(loss: float, epochs: list[Epoch], config: TrainingConfig) -> None:
    """Raise ConfigError for a loss that is no number or far above the best so far."""
    best = min((epoch.loss for epoch in epochs), default=math.inf)
    if not math.isfinite(loss) or loss > best + _COLLAPSE:
        raise ConfigError(
            f"--learning-rate {config.learning_rate}: epoch {len(epochs) + 1} has the loss {loss:.4g}, "
            f"the best before it {best:.4g}: training has collapsed. Lower it, or lengthen --warmup-steps"
        )
