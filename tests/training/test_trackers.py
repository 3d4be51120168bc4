"""Trackers: TensorBoard's files hold the figures of the training log. tests/warehouse has the one of MLflow."""

import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from batchrec import tracker
from batchrec.errors import ConfigError
from tests.support.models import SMALL, run_cli, training_log, training_sequences


def figures_in(folder: Path) -> list[dict[str, Any]]:
    """The figures of each epoch, in the order of the epochs."""
    (file,) = folder.glob("events.out.tfevents.*")
    contents, place = file.read_bytes(), 0
    epochs: dict[int, dict[str, Any]] = {}
    while place < len(contents):
        # A record is its length, a checksum of that, an event, and a checksum of it.
        (length,) = struct.unpack_from("<Q", contents, place)
        event = Event.FromString(contents[place + 12 : place + 12 + length])
        place += 16 + length
        for value in event.summary.value:
            epochs.setdefault(event.step, {"epoch": event.step})[value.tag] = pytest.approx(value.simple_value)
    return list(epochs.values())


@pytest.mark.usefixtures("no_export")
def test_tensorboard_gets_the_figures_of_the_training_log(tmp_path: Path) -> None:
    paths = ("--sequences", training_sequences(), "--out", tmp_path / "model")
    assert run_cli("train", *paths, *SMALL, "--track", f"tensorboard:{tmp_path / 'runs'}") == 0
    assert training_log(tmp_path / "model") == figures_in(tmp_path / "runs")


@pytest.mark.parametrize("target", ["tensorboard", "tensorboard:", "wandb:project"])
def test_another_target_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=f"^--track {target}: expected tensorboard:FOLDER or mlflow:URI$"):
        tracker(target)


@pytest.mark.parametrize(("kind", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_missing_package_is_one_line(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    advice = rf"Install it with pip install 'batchrec\[{kind}\]'"
    with (
        pytest.raises(ConfigError, match=rf"^--track {kind}: the package {package} is not installed\. {advice}$"),
        tracker(f"{kind}:place"),
    ):
        raise AssertionError
