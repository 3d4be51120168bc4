"""MLflow gets the options and the figures of a training; a server that is lost later does not end it."""

import logging
from dataclasses import asdict
from pathlib import Path

import pytest

from batchrec import Epoch, TrainingConfig, tracker
from batchrec.errors import StoreError

mlflow = pytest.importorskip("mlflow", reason="the warehouse extra is not installed")

EPOCHS = [Epoch(number, 1 / number, 0.1 * number, 0.2, 0.05, 0.1, 1.5) for number in (1, 2)]


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of files: a real one needs a server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "runs").as_uri()


def test_a_run_has_the_options_and_the_figures_of_each_epoch(uri: str) -> None:
    with tracker(f"mlflow:{uri}", TrainingConfig(seed=3)) as on_epoch:
        for epoch in EPOCHS:
            on_epoch(epoch)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("batchrec").experiment_id])
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "3")
    for name in asdict(EPOCHS[0]).keys() - {"epoch"}:
        history = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        assert history == [(epoch.epoch, getattr(epoch, name)) for epoch in EPOCHS]


def test_an_error_of_the_training_is_a_failed_run(uri: str) -> None:
    with pytest.raises(ZeroDivisionError), tracker(f"mlflow:{uri}"):
        raise ZeroDivisionError
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("batchrec").experiment_id])
    assert run.info.status == "FAILED"


def test_a_server_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(StoreError, match=r"^--track mlflow:http://127\.0\.0\.1:9: "),
        tracker("mlflow:http://127.0.0.1:9"),
    ):
        raise AssertionError


def test_a_server_that_is_lost_later_is_a_warning(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lose(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("connection reset")

    with caplog.at_level(logging.WARNING), tracker(f"mlflow:{uri}") as on_epoch:
        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lose)
        on_epoch(EPOCHS[0])
    assert "--track mlflow: epoch 1 is not tracked: connection reset" in caplog.messages
