"""Processes that score a shard each, here on the CPU, make the table of one process."""

import os
import signal
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import ConfigError, DeviceError, InputError
from batchrec.scoring import processes
from batchrec.scoring.processes import score_file, score_in_processes, visible_gpus
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from tests.support.models import names_in, run_cli, trained_model, training_histories, write_sequences

HISTORIES = training_histories() | {501: [7, 8], 503: []}
# One user per run of the model: the last bits of scores do not depend on the other users of a batch.
CONFIG = ScoringConfig(device="cpu", batch_tokens=1)


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "sequences.parquet", HISTORIES)


def counts(report: ScoringReport) -> dict[str, Any]:
    return {name: value for name, value in vars(report).items() if name not in ("out", "seconds")}


def test_two_processes_make_the_table_of_one(sequences: Path, tmp_path: Path) -> None:
    plain = score(sequences, trained_model(), CONFIG, tmp_path / "plain.parquet")
    report = score_in_processes(sequences, trained_model(), CONFIG, tmp_path / "recs.parquet", ["", ""])
    assert pq.read_table(tmp_path / "recs.parquet").equals(pq.read_table(tmp_path / "plain.parquet"))
    assert counts(report) == counts(plain)
    assert report.out == str(tmp_path / "recs.parquet")
    assert names_in(tmp_path) == {"sequences.parquet", "plain.parquet", "recs.parquet"}


def test_the_error_of_a_process_is_that_of_the_job(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1000], 2: [1001, None]})
    (tmp_path / "recs.parquet").write_text("old")
    with pytest.raises(InputError, match=r"1 null\(s\) in column 'item_ids'"):
        score_in_processes(sequences, trained_model(), CONFIG, tmp_path / "recs.parquet", ["", ""])
    assert (tmp_path / "recs.parquet").read_text() == "old"
    assert names_in(tmp_path) == {"sequences.parquet", "recs.parquet"}
    assert active_children() == []


def _die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_process_is_an_error(sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_score", _die)
    with pytest.raises(ConfigError, match="--gpus 2: a process was killed, perhaps because memory ran out"):
        score_in_processes(sequences, trained_model(), CONFIG, tmp_path / "recs.parquet", ["", ""])
    assert names_in(tmp_path) == {"sequences.parquet"}


def test_each_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8a2f,7")
    assert visible_gpus(2) == ["5", "GPU-8a2f"]
    asked: list[Any] = []
    monkeypatch.setattr(processes, "score_in_processes", lambda *arguments: asked.append(arguments))
    score_file(tmp_path / "s", tmp_path / "m", ScoringConfig(gpus=3), tmp_path / "o", None)
    ((*_, config, _, gpus),) = asked
    assert (config.device, gpus) == ("cuda", ["5", "GPU-8a2f", "7"])


def test_more_gpus_than_are_visible_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(ConfigError, match=r"--gpus 2: CUDA_VISIBLE_DEVICES names 1\. Pass 1, or unset it"):
        visible_gpus(2)


@pytest.mark.parametrize("options", [{"shard": "0/2"}, {"device": "cpu"}, {"precision": "int8"}])
def test_gpus_fit_no_cpu_and_no_shard(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--gpus 2: expected 1 with --shard, --device cpu or --precision int8"):
        ScoringConfig(gpus=2, **options)


def test_gpus_that_are_missing_are_an_error(
    sequences: Path, tmp_path: Path, no_nvidia: None, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ("--sequences", sequences, "--model", trained_model(), "--out", tmp_path / "recs.parquet")
    assert run_cli("score", *paths, "--gpus", 2) == DeviceError.exit_code
    assert "--device cuda: no GPU works" in capsys.readouterr().err
    assert not (tmp_path / "recs.parquet").exists()


@pytest.fixture
def no_nvidia() -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("the machine has a GPU")
