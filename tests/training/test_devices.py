"""A training whose device has too little memory ends with a line that says what to change."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from batchrec.config import TrainingConfig
from batchrec.errors import ConfigError
from batchrec.training.train import train
from batchrec.training.trainer import Trainer
from tests.support.models import training_sequences


def cuda_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation")


def mps_is_full() -> None:
    raise RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)")


def cpu_is_full() -> None:
    torch.empty(2**50)


@pytest.mark.parametrize("allocate", [cuda_is_full, mps_is_full, cpu_is_full])
def test_full_memory_is_one_line(allocate: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_step", lambda *_: allocate())
    with pytest.raises(ConfigError, match=r"^--device cpu: .*memory.*[^.]\. Pass a smaller --batch-size, --negatives"):
        train(training_sequences(), TrainingConfig(device="cpu"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_torch_stay_bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_step", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        train(training_sequences(), TrainingConfig(device="cpu"), tmp_path / "model")
