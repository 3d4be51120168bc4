"""score --engine ray on a cluster of two workers: the table of plain score, row for row."""

import subprocess
import sys
from pathlib import Path

import pytest

from batchrec.config import ScoringConfig
from batchrec.engines import scoring_engine
from batchrec.errors import DeviceError
from batchrec.scoring.score import score
from tests.support.engines import HISTORIES, assert_same, scorings
from tests.support.models import trained_model, write_sequences

pytestmark = pytest.mark.usefixtures("ray")


def test_a_cluster_without_gpu_is_refused_if_one_is_asked_for(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    config = ScoringConfig(device="cuda", engine="ray")
    with pytest.raises(DeviceError, match="the Ray cluster has no GPU"):
        score(sequences, trained_model(), config, tmp_path / "recs.parquet", engine=scoring_engine("ray"))


def test_the_command_uses_the_cluster_of_ray_address(ray: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = scorings(tmp_path, {}, "local", None)
    monkeypatch.setenv("RAY_ADDRESS", ray)
    command = _command("--device", "cpu", "--workers", "2")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same([plain, tmp_path / "ray.parquet"])


@pytest.mark.parametrize(
    ("address", "exit_code", "said"),
    [
        ("127.0.0.1:1", 8, "RAY_ADDRESS 127.0.0.1:1: the cluster cannot be reached: "),
        ("ray://127.0.0.1:10001", 2, "RAY_ADDRESS ray://127.0.0.1:10001: is of Ray Client. "),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_error(
    address: str, exit_code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    monkeypatch.setenv("RAY_ADDRESS", address)
    done = subprocess.run(_command("--device", "cpu"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, done.stderr
    assert f"batchrec: error: {said}" in done.stderr
    assert not (tmp_path / "ray.parquet").exists()


def _command(*options: str) -> list[str]:
    files = ["--sequences", "sequences.parquet", "--model", str(trained_model()), "--out", "ray.parquet"]
    return [sys.executable, "-m", "batchrec", "score", "--engine", "ray", *files, *options]
