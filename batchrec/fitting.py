"""The training loop: epochs over windows of the histories until held-out items are ranked no better."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from batchrec.batching import Histories, Ints, draw_windows, length_sorted, mask_places, pad
from batchrec.config import TrainingConfig
from batchrec.encoder import Encoder
from batchrec.errors import ConfigError
from batchrec.holdout import HeldOut, encoder_accuracy, popularity_accuracy
from batchrec.objectives import masked_item_loss

_log = logging.getLogger(__name__)


_MAX_GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class Batch:
    """Windows of like length, tokens (windows, length) int32, and the places to mask, of the same shape, bool."""

    tokens: Ints
    masked: NDArray[np.bool_]


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
    encoder: Encoder, training: Histories, held_out: HeldOut, config: TrainingConfig, generator: np.random.Generator
) -> list[Epoch]:
    """Train the encoder, and leave it with the weights of the epoch that ranks held-out items best.

    Raises ConfigError where the loss is no longer a number.
    """
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / (config.warmup_steps + 1)))
    popularity = popularity_accuracy(training, encoder.item_biases.numel(), held_out)
    epochs: list[Epoch] = []
    best_epoch, best_ndcg, best_weights = 0, -1.0, encoder.state_dict()
    while len(epochs) < config.max_epochs and len(epochs) - best_epoch < config.patience:
        started = time.monotonic()
        number = len(epochs) + 1
        batches = _draw_batches(training, config, generator, f"epoch {number}")
        loss = _train_epoch(encoder, batches, optimizer, warm_up)
        if not math.isfinite(loss):
            raise ConfigError(f"--learning-rate {config.learning_rate}: epoch {number} has the loss {loss}. Lower it")
        model = encoder_accuracy(encoder, config.max_len, held_out)
        seconds = round(time.monotonic() - started, 3)
        epochs.append(Epoch(number, loss, model.ndcg, model.hit_rate, popularity.ndcg, popularity.hit_rate, seconds))
        _log.info("%s", epochs[-1])
        if model.ndcg > best_ndcg:
            best_epoch, best_ndcg = number, model.ndcg
            best_weights = {name: weight.detach().clone() for name, weight in encoder.state_dict().items()}
    encoder.load_state_dict(best_weights)
    return epochs


def _train_epoch(
    encoder: Encoder,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    warm_up: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Take a step for every batch; gives the mean of their losses."""
    encoder.train()
    device = encoder.item_biases.device
    losses = []
    with logging_redirect_tqdm():
        for batch in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = masked_item_loss(
                    encoder, torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.masked).to(device)
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), _MAX_GRADIENT_NORM)
            optimizer.step()
            warm_up.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def _draw_batches(
    training: Histories, config: TrainingConfig, generator: np.random.Generator, title: str
) -> Iterator[Batch]:
    """Draw an epoch's windows and masks, batch by batch, in random order, under a progress bar on a terminal."""
    batch_size = config.batch_size or _batch_size(training, config.max_len)
    starts, lengths = draw_windows(training, config.max_len, generator, config.min_epoch_steps * batch_size)
    shuffled = generator.permutation(len(starts))
    starts, lengths = starts[shuffled], lengths[shuffled]
    batches = list(length_sorted(lengths, batch_size))
    order = generator.permutation(len(batches))
    for number in tqdm(order, title, unit="batch", leave=False, disable=None):
        rows = batches[number]
        masked = mask_places(lengths[rows], config.mask_prob, config.last_mask_prob, generator)
        yield Batch(pad(training.items, starts[rows], lengths[rows]), masked)


def _batch_size(training: Histories, max_len: int) -> int:
    """Choose a size that gives few histories many steps: they are what a small model learns by."""
    n_windows = int((-(-training.lengths // max_len)).sum())
    return min(max(16, n_windows // 64), 128)
