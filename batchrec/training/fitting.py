"""The training loop: epochs over windows of the histories until held-out items are ranked no better."""

import logging
import math
import time
from dataclasses import dataclass

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from batchrec.config import TrainingConfig
from batchrec.errors import ConfigError
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Split, encoder_accuracy, popularity_accuracy
from batchrec.training.processes import Processes
from batchrec.training.trainer import Trainer
from batchrec.training.windows import draw_batches

_log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Fitted:
    """How training went: every epoch, the one that was kept, and the option that ended it."""

    epochs: list[Epoch]
    best: Epoch
    ended_by: str


def fit(encoder: Encoder, split: Split, config: TrainingConfig, processes: Processes = Processes()) -> Fitted:
    """Train the encoder, and leave it with the averaged weights of the epoch that ranks held-out items best.

    Raises ConfigError where the loss is no longer a number, or climbs back.
    """
    trainer = Trainer(encoder, config, processes)
    generator = np.random.default_rng(config.seed)
    vocabulary_size = encoder.item_biases.numel()
    popularity = popularity_accuracy(split, vocabulary_size)
    epochs: list[Epoch] = []
    started = time.monotonic()
    ended_by = None
    while ended_by is None:
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
        best = max(epochs, key=lambda epoch: epoch.ndcg_at_10)
        if best is epochs[-1]:
            best_weights = {name: weight.clone() for name, weight in trainer.averaged.state_dict().items()}
        ended_by = processes.from_first(_end(number, best, (time.monotonic() - started) / 60, config))
    encoder.load_state_dict(best_weights)
    return Fitted(epochs, best, ended_by)


def _end(number: int, best: Epoch, minutes: float, config: TrainingConfig) -> str | None:
    """Name the option by which no epoch follows the one of this number; None where one does."""
    if number - best.epoch >= config.patience:
        return "patience"
    if number >= config.max_epochs:
        return "max_epochs"
    return "max_minutes" if minutes >= config.max_minutes else None


def _check_loss(loss: float, epochs: list[Epoch], config: TrainingConfig) -> None:
    """Raise ConfigError for a loss that is no number or far above the best so far."""
    best = min((epoch.loss for epoch in epochs), default=math.inf)
    if not math.isfinite(loss) or loss > best + _COLLAPSE:
        raise ConfigError(
            f"--learning-rate {config.learning_rate}: epoch {len(epochs) + 1} has the loss {loss:.4g}, "
            f"the best before it {best:.4g}: training has collapsed. Lower it, or lengthen --warmup-steps"
        )
