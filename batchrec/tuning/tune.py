"""The tune job: train with other options, and find those whose encoder ranks held-out items best.

A trial is a training that ends where `train` would, but before its blend, its refit and its export: it is judged by
the figure that chooses an epoch, NDCG@10 on the items that `train` holds out. No model is kept.
"""

import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrec.config import SPACE, TrainingConfig, TuneConfig
from batchrec.config.arguments import checked
from batchrec.errors import ConfigError
from batchrec.system.stores import needs_extra
from batchrec.system.temporaries import temporary_folder
from batchrec.training.loop import Epoch, best_of, end_of
from batchrec.training.train import train

if TYPE_CHECKING:
    import optuna

_log = logging.getLogger(__name__)

# A trial may be pruned after this many epochs, once this many trials have been measured.
_UNPRUNED_EPOCHS, _UNPRUNED_TRIALS = 3, 4
# The search may draw values again that were tried: it gives up after this many draws per trial.
_DRAWS_PER_TRIAL = 20


@dataclass(frozen=True)
class Trial:
    """A training of the search. options: by their names on the command line; None: chosen from the histories.

    ndcg_at_10: that of the best epoch, None if the training failed. ended_by: patience, max_epochs, trial_minutes,
    max_minutes, pruned (worse than the median of the others after as many epochs) or error.
    """

    number: int
    options: dict[str, Any]
    ndcg_at_10: float | None
    best_epoch: int
    epochs: int
    ended_by: str
    seconds: float

    def __str__(self) -> str:
        figure = "no NDCG@10" if self.ndcg_at_10 is None else f"NDCG@10 {self.ndcg_at_10:.4f}"
        values = ", ".join(f"{name} {'default' if value is None else value}" for name, value in self.options.items())
        return f"trial {self.number}: {figure}, ended by {self.ended_by} after {self.epochs} epoch(s): {values}"


@dataclass(frozen=True)
class TuneReport:
    """The trials, the first of which changed nothing. best: number of the best one. options: what it changed."""

    sequences: str
    trials: list[Trial]
    best: int
    options: dict[str, Any]
    seconds: float


@checked
def tune(
    sequences: Path | str = Path("sequences.parquet"),
    config: TuneConfig = TuneConfig(),
    training: TrainingConfig = TrainingConfig(),
) -> TuneReport:
    """Train with the values of some options of `training`, and return the trials; nothing is written.

    Ctrl-C ends the search early: the trials so far are returned.
    Raises ConfigError if optuna is not installed or no encoder is to be trained, and what `train` raises with the
    options as they are. A later training that fails is a trial without a figure.
    """
    started = time.monotonic()
    with needs_extra("tune", "tune"):
        import optuna
    if training.max_epochs == 0:
        raise ConfigError("--max-epochs 0 of train: there is no encoder to tune. Set it to 1 or more")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=config.seed),
        pruner=optuna.pruners.MedianPruner(_UNPRUNED_TRIALS, _UNPRUNED_EPOCHS),
    )
    current = {name: getattr(training, name) for name in config.searched}
    study.enqueue_trial(current)
    default = TrainingConfig()
    choices = {
        name: list(dict.fromkeys([value, getattr(default, name), *SPACE[name]])) for name, value in current.items()
    }
    tried: dict[tuple[Any, ...], Trial] = {}
    ends = started + 60 * config.max_minutes
    with temporary_folder(Path(tempfile.gettempdir()) / "batchrec-tune") as folder, _ended_by_hand(tried):
        for _ in range(_DRAWS_PER_TRIAL * config.max_trials):
            is_done = len(tried) in {config.max_trials, math.prod(map(len, choices.values()))}
            if is_done or (tried and time.monotonic() >= ends):
                break
            drawn = study.ask()
            values = {name: drawn.suggest_categorical(name, of_name) for name, of_name in choices.items()}
            key = tuple(values.values())
            if key not in tried:
                limits = _Limits(training, ends, time.monotonic() + config.seconds_per_trial)
                tried[key] = _train(sequences, folder / "model", values, limits, drawn, len(tried))
                _log.info("%s", tried[key])
            study.tell(drawn, **_told(tried[key]))
    trials = list(tried.values())
    best = max(trials, key=lambda trial: trial.ndcg_at_10 or 0.0)
    changed = {name: value for name, value in best.options.items() if value != trials[0].options[name]}
    return TuneReport(str(sequences), trials, best.number, changed, round(time.monotonic() - started, 3))


@contextmanager
def _ended_by_hand(tried: Mapping[Any, Trial]) -> Iterator[None]:
    """Let Ctrl-C end the search once a trial has been measured: an hour of trials is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        if not tried:
            raise
        _log.warning("interrupted: the search ends with the %d trial(s) so far", len(tried))


@dataclass(frozen=True)
class _Limits:
    """The ends of a trial. ends, trial_ends: times of the monotonic clock, for all trials and for this one."""

    training: TrainingConfig
    ends: float
    trial_ends: float


class _TrialEnded(Exception):  # noqa: N818 - ends a training from within
    """A trial has been measured."""


class _Watch:
    """Called after each epoch of a trial; ends its training."""

    def __init__(self, limits: _Limits, drawn: "optuna.Trial") -> None:
        self.limits, self.drawn = limits, drawn
        self.epochs: list[Epoch] = []
        # The time limit of train itself, which only the first epoch can reach.
        self.ended_by = "max_minutes"

    def __call__(self, epoch: Epoch) -> None:
        """Keep an epoch, and raise _TrialEnded if it is the last one."""
        self.epochs.append(epoch)
        self.drawn.report(epoch.ndcg_at_10, epoch.epoch)
        ended_by = end_of(self.epochs, self.limits.training, math.inf) or self._limit()
        if ended_by is not None:
            self.ended_by = ended_by
            raise _TrialEnded

    def _limit(self) -> str | None:
        """Return what ends a trial that its training would not end; None if nothing does."""
        now = time.monotonic()
        if now >= self.limits.ends:
            return "max_minutes"
        if now >= self.limits.trial_ends:
            return "trial_minutes"
        return "pruned" if self.drawn.should_prune() else None


def _train(  # noqa: PLR0913, PLR0917 - what a trial is made of
    sequences: Path | str, out: Path, values: dict[str, Any], limits: _Limits, drawn: "optuna.Trial", number: int
) -> Trial:
    """Train with these values, as far as the limits permit."""
    started, watch = time.monotonic(), _Watch(limits, drawn)
    # The limits of the trial end it earlier, and need neither blend nor refit.
    seconds_left = 2 * max(limits.ends - started, 1.0)
    try:
        options = replace(limits.training, **values, blend="none", max_minutes=seconds_left / 60)
        train(sequences, options, out, on_epoch=watch)
    except _TrialEnded:
        _log.debug("trial %d: ended by %s", number, watch.ended_by)
    except ConfigError as error:
        # The first trial has the options of the user, who must know what is wrong with them.
        if number == 0:
            raise
        _log.warning("trial %d: %s", number, error)
        watch.ended_by, watch.epochs = "error", []
    best = best_of(watch.epochs) if watch.epochs else None
    return Trial(
        number=number,
        options={name.replace("_", "-"): value for name, value in values.items()},
        ndcg_at_10=None if best is None else best.ndcg_at_10,
        best_epoch=0 if best is None else best.epoch,
        epochs=len(watch.epochs),
        ended_by=watch.ended_by,
        seconds=round(time.monotonic() - started, 3),
    )


def _told(trial: Trial) -> dict[str, Any]:
    """Return what optuna is told of a trial: its figure, or why it has none."""
    from optuna.trial import TrialState

    if trial.ndcg_at_10 is None:
        return {"state": TrialState.FAIL}
    # A pruned trial is known by the figures of its epochs.
    return {"state": TrialState.PRUNED} if trial.ended_by == "pruned" else {"values": trial.ndcg_at_10}
