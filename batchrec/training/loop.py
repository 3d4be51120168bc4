"""The training loop: epochs over windows of the histories until the accuracy on held-out items stops improving."""

import logging
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm.contrib.logging import logging_redirect_tqdm

from batchrec.config import TrainingConfig
from batchrec.errors import ConfigError
from batchrec.system.checkpoints import CheckpointStore
from batchrec.training.distributed import ProcessGroup
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Accuracy, Split, encoder_accuracy, popularity_accuracy
from batchrec.training.time_limit import TimeIsUp, TimeLimit
from batchrec.training.trainer import Trainer, TrainerState, tensors_of
from batchrec.training.windows import draw_batches

_log = logging.getLogger(__name__)

# A loss this many nats above the best so far is not noise: training has collapsed.
_COLLAPSE = 1.0
# The share of the time limit that is left to a refit.
_REFIT_SHARE = 0.2
# The name of the checkpoint written after every epoch.
_CHECKPOINT = "training"


@dataclass(frozen=True)
class Epoch:
    """One line of training.jsonl: the mean loss, and the accuracy on held-out items after the epoch.

    seconds are rounded up, so that their sum shows a resumed run that the time limit was reached.
    """

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


# Called after each epoch; if it returns True, the training ends. NumPy's True too, which comparing figures often gives.
OnEpoch: TypeAlias = Callable[[Epoch], object]


@dataclass(frozen=True)
class FitResult:
    """The epochs of a training, the number of the best one, whose weights are kept, and the option that ended it.

    best_epoch: from 1; 0 without an epoch. popularity: its accuracy on the held-out items.
    """

    epochs: list[Epoch]
    best_epoch: int
    ended_by: str
    popularity: Accuracy

    def seconds_left(self, config: TrainingConfig) -> float:
        """Return the seconds of --max-minutes that are left to a refit; the same in a run that resumes."""
        seconds = 60 * config.max_minutes
        # A resumed run may take less time for the epoch that is discarded.
        return seconds * _REFIT_SHARE if self.ended_by == "max_minutes" else seconds - _seconds(self.epochs)


def fit(  # noqa: PLR0913, PLR0917 - train passes what it was given
    encoder: Encoder,
    split: Split,
    config: TrainingConfig,
    group: ProcessGroup = ProcessGroup(),
    checkpoints: CheckpointStore | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitResult:
    """Train the encoder, and leave it with the averaged weights of the epoch that ranks held-out items best.

    With --max-epochs 0 it stays as it is.

    All randomness of an epoch depends only on the seed and the number of the epoch, so a run that resumes from the
    `checkpoints` of another does exactly what that one would have done. The first process reads and writes them.
    torch's global generator is seeded, because dropout draws from no other.
    An epoch in which the time limit is reached is discarded, except the first: that one is measured as far as it got,
    since there is no other model. on_epoch: called by the first process; what it raises ends the training.
    Raises ConfigError if the loss is not finite or climbs far above the best so far.
    """
    trainer = Trainer(encoder, config, group)
    max_seconds = 60 * config.max_minutes * (1 if split.refit is None else 1 - _REFIT_SHARE)
    vocabulary_size = encoder.item_biases.numel()
    popularity = popularity_accuracy(split, vocabulary_size)
    epochs, best_weights = _resume(checkpoints, trainer, group)
    while (ended_by := group.broadcast(end_of(epochs, config, max_seconds))) is None:
        limit = TimeLimit(max_seconds - _seconds(epochs), group)
        number = len(epochs) + 1
        generator = epoch_generator(config.seed, number, group.rank)
        batches = draw_batches(split.training, vocabulary_size, encoder.shape, config, generator)
        with logging_redirect_tqdm(), closing(batches):
            loss = trainer.take_steps(batches, limit.ends_after)
        model: Accuracy | None = None
        if not (epochs and limit.has_ended):
            _check_loss(loss, epochs, config, checkpoints)
            measured = _accuracy(trainer.averaged, split, epochs, limit) if group.is_first else None
            model = group.broadcast(measured)
        if model is None:
            ended_by = "max_minutes"
            _log.info("--max-minutes %g: the time was up in epoch %d, which is discarded", config.max_minutes, number)
            break
        seconds = math.ceil(1000 * limit.elapsed) / 1000
        epochs.append(Epoch(number, loss, model.ndcg, model.hit_rate, popularity.ndcg, popularity.hit_rate, seconds))
        _log.info("%s", epochs[-1])
        if best_of(epochs) is epochs[-1]:
            _keep_weights(trainer.averaged, best_weights)
        if checkpoints is not None and group.is_first:
            _save_checkpoint(checkpoints, trainer, epochs, best_weights)
        answer = on_epoch(epochs[-1]) if group.is_first and on_epoch is not None else None
        if group.broadcast(isinstance(answer, bool | np.bool_) and bool(answer)):
            ended_by = "on_epoch"
            break
    if ended_by == "max_minutes":
        _warn_of_limit(epochs, config)
    if epochs:
        encoder.load_state_dict(best_weights)
    return FitResult(epochs, best_of(epochs).epoch if epochs else 0, ended_by, popularity)


def _accuracy(encoder: Encoder, split: Split, epochs: list[Epoch], limit: TimeLimit) -> Accuracy | None:
    """Measure the accuracy after an epoch; None if the time is up and there are earlier epochs to choose from."""
    try:
        return encoder_accuracy(encoder, split.held_out, limit.check if epochs else None)
    except TimeIsUp:
        return None


def epoch_generator(seed: int, epoch: int, rank: int) -> np.random.Generator:
    """Seed the generators of an epoch: all processes draw the same batches, but each its own dropout."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0]))
    return np.random.default_rng([seed, epoch])


def _keep_weights(encoder: Encoder, kept: dict[str, Tensor]) -> None:
    """Replace the weights that are kept, one after the other: millions of items leave no room for both."""
    for name, weight in encoder.state_dict().items():
        kept.pop(name, None)
        kept[name] = weight.clone()


def _save_checkpoint(
    checkpoints: CheckpointStore, trainer: Trainer, epochs: list[Epoch], best_weights: dict[str, Tensor]
) -> None:
    state = trainer.state()
    best = {f"best.{name}": weight.cpu().numpy() for name, weight in best_weights.items()}
    metadata = {"schedule": state.schedule, "epochs": [asdict(epoch) for epoch in epochs]}
    checkpoints.write(_CHECKPOINT, state.arrays | best, metadata)


def _resume(
    checkpoints: CheckpointStore | None, trainer: Trainer, group: ProcessGroup
) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Restore the trainer from its checkpoint, if there is one; return the epochs so far and the best weights.

    All arrays are copied, and the checkpoint is let go: as long as they are mapped, its file takes disk space, also
    after the next epoch has replaced it.
    """
    stored = checkpoints.read(_CHECKPOINT) if checkpoints is not None and group.is_first else None
    checkpoint = group.broadcast(stored)
    if checkpoint is None:
        return [], {}
    trainer.restore(TrainerState(checkpoint.arrays, checkpoint.metadata["schedule"]))
    epochs = [Epoch(**epoch) for epoch in checkpoint.metadata["epochs"]]
    _log.info("resuming after epoch %d of an earlier run", len(epochs))
    return epochs, tensors_of(checkpoint.arrays, "best.")


def best_of(epochs: list[Epoch]) -> Epoch:
    """Return the epoch that ranks held-out items best: the first one of several."""
    return max(epochs, key=lambda epoch: epoch.ndcg_at_10)


def end_of(epochs: list[Epoch], config: TrainingConfig, max_seconds: float) -> str | None:
    """Return the option that ends the training here; None if another epoch follows."""
    if epochs and len(epochs) - best_of(epochs).epoch >= config.patience:
        return "patience"
    if len(epochs) >= config.max_epochs:
        return "max_epochs"
    return "max_minutes" if epochs and _seconds(epochs) >= max_seconds else None


def _warn_of_limit(epochs: list[Epoch], config: TrainingConfig) -> None:
    """Warn that the time limit ended the training, and say whether the last epoch was the best one."""
    best = best_of(epochs)
    _log.warning(
        "--max-minutes %g ended the training after epoch %d, before --patience %d did: NDCG@10 was best after epoch "
        "%d, %.4f, and is %.4f now. %s --max-minutes",
        config.max_minutes,
        len(epochs),
        config.patience,
        best.epoch,
        best.ndcg_at_10,
        epochs[-1].ndcg_at_10,
        "It still rises: raise" if best is epochs[-1] else "It may rise again with more",
    )


def _seconds(epochs: list[Epoch]) -> float:
    return math.fsum(epoch.seconds for epoch in epochs)


def _check_loss(loss: float, epochs: list[Epoch], config: TrainingConfig, checkpoints: CheckpointStore | None) -> None:
    """Raise ConfigError, and remove the checkpoint, if the loss is not finite or far above the best so far."""
    best = min((epoch.loss for epoch in epochs), default=math.inf)
    if not math.isfinite(loss) or loss > best + _COLLAPSE:
        if checkpoints is not None:
            checkpoints.remove(_CHECKPOINT)
        raise ConfigError(
            f"--learning-rate {config.learning_rate}: training has collapsed: the loss of epoch {len(epochs) + 1} is "
            f"{loss:.4g}, the best before it was {best:.4g}. Lower the learning rate, or raise --warmup-steps"
        )
