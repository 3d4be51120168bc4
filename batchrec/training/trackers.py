"""Trackers: the figures of a training's epochs, sent to TensorBoard or MLflow while it trains."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict

from batchrec.config import TrainingConfig
from batchrec.config.arguments import checked
from batchrec.errors import ConfigError, StoreError, one_line
from batchrec.system.stores import needs_extra
from batchrec.training.loop import Epoch, OnEpoch

_log = logging.getLogger(__name__)

# The experiment of MLflow in which the runs are.
_EXPERIMENT = "batchrec"


@checked
def tracker(target: str, config: TrainingConfig = TrainingConfig()) -> AbstractContextManager[OnEpoch]:
    """Yield a callback for `train(on_epoch=...)` that sends the figures of each epoch to a target.

    target: tensorboard:FOLDER, or mlflow:URI of a tracking server or folder. config: MLflow shows its options.
    Raises ConfigError for another target, or if the package of its extra is not installed; StoreError if MLflow cannot
    be reached at the start. If it cannot be reached later, there is a warning and the training continues.
    """
    kind, _, place = target.partition(":")
    if kind not in _KINDS or not place:
        raise ConfigError(f"--track {target}: expected tensorboard:FOLDER or mlflow:URI")
    return _KINDS[kind](place, config)


@contextmanager
def _tensorboard(folder: str, _config: TrainingConfig) -> Iterator[OnEpoch]:
    with needs_extra("--track tensorboard", "tensorboard"):
        from tensorboardX import SummaryWriter
    with SummaryWriter(folder) as writer:

        def on_epoch(epoch: Epoch) -> None:
            for name, figure in _figures(epoch).items():
                writer.add_scalar(name, figure, epoch.epoch)
            writer.flush()

        yield on_epoch


@contextmanager
def _mlflow(uri: str, config: TrainingConfig) -> Iterator[OnEpoch]:
    # MLflow would otherwise report to its makers too.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with needs_extra("--track mlflow", "mlflow"):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        number = client.create_experiment(_EXPERIMENT) if experiment is None else experiment.experiment_id
        run = client.create_run(number).info.run_id
        client.log_batch(run, params=[Param(name, str(value)) for name, value in asdict(config).items()])
    except MlflowException as error:
        raise StoreError(f"--track mlflow:{uri}: {one_line(error)}") from error

    def on_epoch(epoch: Epoch) -> None:
        moment = int(1000 * time.time())
        try:
            figures = [Metric(name, figure, moment, epoch.epoch) for name, figure in _figures(epoch).items()]
            client.log_batch(run, metrics=figures)
        except MlflowException as error:
            _log.warning("--track mlflow: epoch %d is not tracked: %s", epoch.epoch, one_line(error))

    status = "FAILED"
    try:
        yield on_epoch
        status = "FINISHED"
    finally:
        try:
            client.set_terminated(run, status)
        except MlflowException as error:
            _log.warning("--track mlflow: the run is not ended: %s", one_line(error))


_KINDS: dict[str, Callable[[str, TrainingConfig], AbstractContextManager[OnEpoch]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}


def _figures(epoch: Epoch) -> dict[str, float]:
    return {name: figure for name, figure in asdict(epoch).items() if name != "epoch"}
