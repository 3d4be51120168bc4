"""The README's examples run as they stand there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrec.cli import run
from examples.generate import generate

SMALL_TRAINING = " --max-epochs 2 --min-epoch-steps 2"
SMALLER = {
    "train": SMALL_TRAINING,
    "evaluate": SMALL_TRAINING,
    "bench": " --users 80 --items 220 --ratings 2000 --repeats 1",
}
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    generate(tmp_path, n_users=40, seed=1)
    monkeypatch.chdir(tmp_path)
    # run takes the options of train from the environment.
    monkeypatch.setenv("BATCHREC_TRAIN_MAX_EPOCHS", "2")
    monkeypatch.setenv("BATCHREC_TRAIN_MIN_EPOCH_STEPS", "2")
    return tmp_path


@pytest.mark.slow
def test_the_three_commands_and_what_follows_them_run(sample: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("batchrec ")]
    on_the_sample = [
        line for line in commands if "--query" not in line and "plays/" not in line and "make " not in line
    ]

    assert on_the_sample[:3] == ["batchrec build-sequences", "batchrec train", "batchrec score --out recs.parquet"]
    for command in on_the_sample:
        assert run(shlex.split(command + SMALLER.get(command.split()[1], ""))[1:]) == 0, command
    assert (sample / "recs.parquet").is_file()


def test_the_python_example_runs(sample: Path) -> None:
    (example,) = blocks("python")
    assert "max_epochs=5" in example
    example = example.replace("max_epochs=5", "max_epochs=1, min_epoch_steps=1")
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - the example is ours
    assert (sample / "recs.parquet").is_file()
