"""Training by several processes: gloo and a CPU. One test starts them by torchrun, the others fork them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from batchrec.config import Objective
from batchrec.model.directory import load_model
from batchrec.training.train import train
from tests.support.logs import spread_log, write_log
from tests.support.models import CONFIG, N_ITEMS, SMALL, names_in, training_log, training_sequences
from tests.support.ranks import Ended, run_together

pytestmark = pytest.mark.slow


def torchrun(*options: object) -> subprocess.CompletedProcess[str]:
    """Run `batchrec train` in two processes, as a user does."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    command = [sys.executable, "-m", *map(str, (*launcher, "-m", "batchrec", "train", *SMALL, *options))]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def train_together(*options: object, is_killed: bool = False) -> Ended:
    """Run `batchrec train` in two processes that are forked."""
    return run_together("train", *SMALL, *options, is_killed=is_killed)


def without_seconds(model: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in training_log(model)]


@pytest.mark.usefixtures("no_export")
def test_two_processes_learn_what_one_does(objective: Objective, tmp_path: Path) -> None:
    # Each process draws the whole batch and its negatives, and works on its share.
    config = replace(CONFIG, objective=objective, dropout=0.0, precision="fp32", batch_size=7, negatives=9, seed=4)
    # Events are a second apart: their weights span four powers of two.
    config = replace(config, half_life=5 / 86_400)
    options = ("objective", "dropout", "precision", "batch_size", "negatives", "seed", "half_life", "blend")
    arguments = [part for name in options for part in (f"--{name.replace('_', '-')}", getattr(config, name))]
    together = train_together("--sequences", training_sequences(), "--out", tmp_path / "two", *arguments, "--json")
    assert together.exit_codes == [0, 0], together.stderr
    # Only one process reports.
    assert json.loads(together.stdout)["processes"] == 2
    assert together.stderr.count("epoch 2:") == 1
    train(training_sequences(), config, tmp_path / "one")
    one, two = without_seconds(tmp_path / "one"), without_seconds(tmp_path / "two")
    assert len(one) == len(two) == 2
    for alone, joint in zip(one, two, strict=True):
        assert joint["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert joint == pytest.approx(alone, abs=0.05)
    assert load_model(tmp_path / "two").manifest.n_items == N_ITEMS
    assert names_in(tmp_path) == {"one", "two"}


@pytest.mark.usefixtures("no_export")
def test_two_processes_refit_as_one_does(tmp_path: Path) -> None:
    sequences = write_log(tmp_path / "sequences.parquet", spread_log())
    config = replace(CONFIG, dropout=0.0, precision="fp32", batch_size=7, seed=4, validate="temporal")
    options = ("dropout", "precision", "batch_size", "seed", "validate", "blend")
    arguments = [part for name in options for part in (f"--{name.replace('_', '-')}", getattr(config, name))]
    together = train_together("--sequences", sequences, "--out", tmp_path / "two", *arguments, "--json")
    assert together.exit_codes == [0, 0], together.stderr
    report = json.loads(together.stdout)
    assert (report["processes"], report["validation"]) == (2, "temporal")
    assert together.stderr.count("refit on") == 1
    train(sequences, config, tmp_path / "one")
    one, two = (load(load_model(tmp_path / name).weights)["item_biases"] for name in ("one", "two"))
    assert one == pytest.approx(two, abs=1e-3)


def test_an_error_in_one_process_ends_all(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("no model", encoding="utf-8")
    # Only the first process checks the output folder.
    failed = torchrun("--sequences", training_sequences(), "--out", tmp_path / "thesis")
    assert failed.returncode != 0
    lines = [line for line in failed.stderr.splitlines() if "batchrec: error:" in line]
    assert len(lines) == 1
    assert "thesis: exists and holds no manifest.json" in lines[0]
    assert names_in(tmp_path) == {"thesis"}


def test_two_processes_stop_together_within_an_epoch(tmp_path: Path) -> None:
    limits = ("--max-minutes", 1e-9, "--min-epoch-steps", 1000, "--blend", "none")
    ended = torchrun("--sequences", training_sequences(), "--out", tmp_path / "model", *limits, "--json")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["processes"], report["epochs"], report["ended_by"]) == (2, 1, "max_minutes")


def test_two_processes_that_were_killed_resume(tmp_path: Path) -> None:
    options = ("--sequences", training_sequences(), "--precision", "fp32", "--dropout", 0.3, "--seed", 4)
    whole = train_together(*options, "--out", tmp_path / "whole")
    assert whole.exit_codes == [0, 0], whole.stderr
    killed = train_together(*options, "--out", tmp_path / "resumed", is_killed=True)
    assert killed.exit_codes[0] == -signal.SIGKILL, killed.stderr
    assert ".resumed.progress" in names_in(tmp_path)
    resumed = train_together(*options, "--out", tmp_path / "resumed")
    assert resumed.exit_codes == [0, 0], resumed.stderr
    assert resumed.stderr.count("resuming after epoch 1") == 1
    assert without_seconds(tmp_path / "resumed") == without_seconds(tmp_path / "whole")
    assert load_model(tmp_path / "resumed").weights == load_model(tmp_path / "whole").weights
    assert names_in(tmp_path) == {"whole", "resumed"}
