"""The refit: continue the chosen model on the events after the validation cut too, except the held-out ones."""

import logging
import math
from collections.abc import Generator
from contextlib import closing
from copy import deepcopy
from dataclasses import replace

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from batchrec.config import TrainingConfig
from batchrec.errors import ConfigError
from batchrec.model.batching import Histories
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.distributed import ProcessGroup
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Split
from batchrec.training.loop import FitResult, epoch_generator
from batchrec.training.time_limit import TimeLimit
from batchrec.training.trainer import Trainer
from batchrec.training.warm_start import start_new_items
from batchrec.training.windows import Batch, count_batches, draw_batches

_log = logging.getLogger(__name__)

# Epochs up to the best one for each epoch of the refit: the later events are at most a fifth of all.
_EPOCHS_PER_REFIT = 5
# At most a tenth of the steps warm up.
_STEPS_PER_WARM_UP = 10


def refit(
    chosen: Encoder, fitted: FitResult, split: Split, config: TrainingConfig, group: ProcessGroup = ProcessGroup()
) -> Encoder:
    """Return the chosen encoder after more epochs, on the split's final histories; `chosen` stays as it is.

    The epochs are a fifth of those up to the best one, at least a whole one if the last one was the best. The learning
    rate falls to 0 over them. All their randomness depends only on the seed and the number of the epoch, so a run that
    was killed repeats the refit. It ends early if the time limit is reached.
    Raises ConfigError if the loss is not finite.
    """
    histories = split.final.histories
    # A copy, whose gradients are not averaged over the processes yet.
    encoder = deepcopy(chosen).cpu()
    n_events = np.bincount(split.training.items, minlength=encoder.item_biases.numel())
    n_events[:FIRST_ITEM] = 1
    n_new = start_new_items(encoder, n_events > 0, histories)
    encoder.to(chosen.item_biases.device)
    n_epochs = max(1, fitted.best_epoch // _EPOCHS_PER_REFIT)
    # A model that soon got worse is not trained for twice as long.
    share = 1 if fitted.best_epoch == len(fitted.epochs) else min(1, fitted.best_epoch / _EPOCHS_PER_REFIT)
    n_steps = max(1, round(share * n_epochs * count_batches(histories, encoder.shape, config)))
    warmup_steps = min(config.warmup_steps, n_steps // _STEPS_PER_WARM_UP)
    trainer = Trainer(encoder, replace(config, warmup_steps=warmup_steps), group)
    trainer.decay_over(n_steps)
    limit = TimeLimit(fitted.seconds_left(config), group)
    with logging_redirect_tqdm(), closing(_batches(encoder, histories, n_epochs, config, group)) as batches:
        loss = trainer.take_steps(batches, lambda n_taken: n_taken >= n_steps or limit.ends_after(n_taken))
    if not math.isfinite(loss):
        raise ConfigError(
            f"--learning-rate {config.learning_rate}: training has collapsed: the loss of the refit is {loss:.4g}. "
            "Lower the learning rate, or raise --warmup-steps"
        )
    if limit.has_ended:
        _log.info("--max-minutes %g: the time was up during the refit", config.max_minutes)
    n_more = len(histories.items) - len(split.training.items)
    _log.info("refit on %d later events, %d new items: loss %.4f, %.1f s", n_more, n_new, loss, limit.elapsed)
    encoder.load_state_dict(trainer.averaged.state_dict())
    return encoder


def _batches(
    encoder: Encoder, histories: Histories, n_epochs: int, config: TrainingConfig, group: ProcessGroup
) -> Generator[Batch, None, None]:
    """Yield the batches of all epochs. Each epoch seeds torch's global generator, from which dropout draws."""
    for number in range(1, n_epochs + 1):
        generator = epoch_generator(config.seed, config.max_epochs + number, group.rank)
        yield from draw_batches(histories, encoder.item_biases.numel(), encoder.shape, config, generator)
