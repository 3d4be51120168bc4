"""score --engine ray on a cluster of two workers: the table of plain score, row for row."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.engines import scoring_engine
from batchrec.errors import DeviceError, InputError
from batchrec.scoring.score import score
from tests.support.engines import HISTORIES, assert_same, kill_one_worker, scorings, write_tables
from tests.support.models import trained_model, write_sequences

pytestmark = pytest.mark.usefixtures("ray")


@pytest.mark.parametrize(
    "names", [("block", "pins", "segments", "items", "block_for_user"), ("users", "pins")], ids=["rules", "users"]
)
def test_the_table_equals_that_of_plain_score(names: tuple[str, ...], tmp_path: Path) -> None:
    assert_same(scorings(tmp_path, write_tables(tmp_path, *names), "ray", scoring_engine("ray")))


def test_a_killed_actor_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = scorings(tmp_path, {}, "local", None)
    kill_one_worker(monkeypatch, tmp_path / "killed")
    config = ScoringConfig(device="cpu", workers=2, engine="ray")
    out = tmp_path / "ray.parquet"
    score(tmp_path / "sequences.parquet", trained_model(), config, out, engine=scoring_engine("ray"))
    assert (tmp_path / "killed").exists()
    assert_same([plain, out])


def test_a_broken_history_is_one_error_and_leaves_the_table(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    table = pq.read_table(sequences)
    times = table["timestamps"].to_pylist()
    times[600] = times[600][::-1]
    pq.write_table(table.set_column(2, table.schema.field(2), [times]), sequences)
    (tmp_path / "recs.parquet").write_text("the earlier table")
    config = ScoringConfig(device="cpu", engine="ray")
    with pytest.raises(InputError, match="user 601: the history is not in time order"):
        score(sequences, trained_model(), config, tmp_path / "recs.parquet", engine=scoring_engine("ray"))
    assert (tmp_path / "recs.parquet").read_text() == "the earlier table"


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
