"""A job that was stopped resumes, with the same result as a job that was not stopped."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchrec.arrays import Longs
from batchrec.config import Objective, ScoringConfig, TrainingConfig
from batchrec.model.directory import load_model
from batchrec.rules.pools import RecLists
from batchrec.scoring.chunk_checkpoints import _key
from batchrec.scoring.indexed_users import IndexedUsers
from batchrec.scoring.score import score
from batchrec.scoring.scorer import Scorer
from batchrec.system.resume import checkpoint_dir_of, open_checkpoint_dir
from batchrec.training import loop as fitting
from batchrec.training.train import train
from batchrec.training.trainer import Trainer
from tests.support.logs import spread_log, write_log
from tests.support.models import (
    CONFIG,
    OBJECTIVES,
    model_of,
    names_in,
    run_cli,
    trained_model,
    training_histories,
    training_log,
    training_sequences,
    write_sequences,
)
from tests.support.params import slow_except
from tests.support.shared import scratch


@pytest.fixture(autouse=True)
def older_models() -> None:
    """Make the models that all tests share before a test breaks a job."""
    for objective in OBJECTIVES:
        model_of(objective)


class Stopped(Exception):  # noqa: N818 - not an error
    """In place of a kill."""


# Dropout, negatives, warm-up and ties: all state that is random or changes from step to step.
TRAINING = replace(CONFIG, max_epochs=4, dropout=0.3, negatives=9, seed=3, min_epoch_steps=3, warmup_steps=7)


def stop_after(n_epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = fitting._save_checkpoint, []

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        saved.append(arguments)
        if len(saved) == n_epochs:
            raise Stopped

    monkeypatch.setattr("batchrec.training.loop._save_checkpoint", save_and_stop)


def assert_stops(
    monkeypatch: pytest.MonkeyPatch, stop: Callable[[pytest.MonkeyPatch], object], job: Callable[[], object]
) -> None:
    """Run a job that `stop` has patched to stop; then remove the patch."""
    with monkeypatch.context() as patch:
        stop(patch)
        with pytest.raises(Stopped):
            job()


def train_until(
    n_epochs: int, monkeypatch: pytest.MonkeyPatch, folder: Path, config: TrainingConfig, sequences: Path
) -> None:
    """Train `resumed` for some more epochs, with checkpoints in `checkpoints`."""
    assert_stops(
        monkeypatch,
        lambda patch: stop_after(n_epochs, patch),
        lambda: train(sequences, config, folder / "resumed", folder / "checkpoints"),
    )


def count_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose only number counts the epochs that are trained."""
    take_steps, taken = Trainer.take_steps, [0]

    def count(*arguments: Any) -> float:
        taken[0] += 1
        return take_steps(*arguments)

    monkeypatch.setattr(Trainer, "take_steps", count)
    return taken


def assert_same_model(one: Path, other: Path) -> None:
    for name in ("weights.safetensors", "items.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    logs = [[line | {"seconds": 0} for line in training_log(model)] for model in (one, other)]
    assert logs[0] == logs[1]
    assert load_model(one).manifest.model_id == load_model(other).manifest.model_id
    assert load_model(one).manifest.metrics == load_model(other).manifest.metrics


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("n_epochs", slow_except([1, 2, 3, 4], 2))
def test_training_stopped_after_an_epoch_gives_the_same_model(
    n_epochs: int, objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TRAINING, objective=objective)
    train(training_sequences(), config, tmp_path / "whole")
    train_until(n_epochs, monkeypatch, tmp_path, config, training_sequences())
    assert names_in(tmp_path) == {"whole", "checkpoints"}
    n_trained = count_epochs(monkeypatch)
    train(training_sequences(), config, tmp_path / "resumed", tmp_path / "checkpoints")
    # After the last epoch only the export is left.
    assert n_trained == [4 - n_epochs]
    assert_same_model(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.usefixtures("no_export")
def test_training_stopped_repeatedly_gives_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(training_sequences(), TRAINING, tmp_path / "whole")
    for _ in range(3):
        train_until(1, monkeypatch, tmp_path, TRAINING, training_sequences())
    train(training_sequences(), TRAINING, tmp_path / "resumed", tmp_path / "checkpoints")
    assert_same_model(tmp_path / "whole", tmp_path / "resumed")


def stop_in_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop after some steps of the refit: its batches are taken, but nothing is left of them."""
    take_steps = Trainer.take_steps

    def take_and_stop(*arguments: Any) -> float:
        take_steps(*arguments)
        raise Stopped

    monkeypatch.setattr("batchrec.training.refit.Trainer.take_steps", take_and_stop)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("is_in_refit", slow_except({"before the refit": False, "in the refit": True}, "in the refit"))
def test_a_training_with_a_refit_gives_the_same_model(
    is_in_refit: bool, objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = write_log(tmp_path / "sequences.parquet", spread_log())
    config = replace(TRAINING, objective=objective, validate="temporal")
    train(sequences, config, tmp_path / "whole")
    train_until(4, monkeypatch, tmp_path, config, sequences)
    if is_in_refit:
        assert_stops(
            monkeypatch, stop_in_refit, lambda: train(sequences, config, tmp_path / "resumed", tmp_path / "checkpoints")
        )
    n_trained = count_epochs(monkeypatch)
    train(sequences, config, tmp_path / "resumed", tmp_path / "checkpoints")
    # Only the refit is left.
    assert n_trained == [1]
    assert_same_model(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("change", slow_except(["options", "sequences", "a byte", "--init-from"], "options", "a byte"))
def test_training_with_a_change_starts_over(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences, config, folder = tmp_path / "sequences.parquet", TRAINING, tmp_path / "checkpoints"
    shutil.copy(training_sequences(), sequences)
    train_until(2, monkeypatch, tmp_path, config, sequences)
    if change == "options":
        config = replace(config, learning_rate=0.002)
    elif change == "sequences":
        write_sequences(sequences, training_histories() | {99: [1001, 1002, 1003]})
    elif change == "a byte":
        (part,) = folder.glob("*.part")
        contents = bytearray(part.read_bytes())
        contents[len(contents) // 2] ^= 1
        part.write_bytes(contents)
    else:
        config = replace(config, init_from=str(trained_model()), dropout=None)
    n_trained = count_epochs(monkeypatch)
    train(sequences, config, tmp_path / "resumed", folder)
    assert n_trained == [4]
    train(sequences, config, tmp_path / "whole")
    assert_same_model(tmp_path / "whole", tmp_path / "resumed")


def test_minutes_of_all_attempts_count() -> None:
    epochs = [fitting.Epoch(n, 1.0, n / 10, 1.0, 0.0, 0.0, seconds=30.0) for n in (1, 2, 3)]
    assert fitting.end_of(epochs, TrainingConfig(), 90.0) == "max_minutes"
    assert fitting.end_of(epochs, TrainingConfig(), 96.0) is None


def options(config: TrainingConfig) -> list[str]:
    given = {name: value for name, value in asdict(config).items() if value is not None and value is not False}
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_training_that_was_killed_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(training_sequences(), TRAINING, tmp_path / "whole")
    arguments = ["train", "--sequences", str(training_sequences()), "--out", str(tmp_path / "model")]
    arguments += options(TRAINING)
    program = f"""
import os, torch
torch.set_num_threads(1)
from batchrec.cli import run
from batchrec.training import loop as fitting
save = fitting._save_checkpoint
def save_and_die(checkpoints, trainer, epochs, weights):
    save(checkpoints, trainer, epochs, weights)
    if len(epochs) == 2:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
fitting._save_checkpoint = save_and_die
run({arguments!r})
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert ".model.progress" in names_in(tmp_path)
    n_trained = count_epochs(monkeypatch)
    caplog.set_level("INFO", "batchrec")
    assert run_cli(*arguments) == 0
    assert n_trained == [2]
    assert "resuming after epoch 2" in caplog.text
    assert_same_model(tmp_path / "whole", tmp_path / "model")
    # The folder that the killed run was filling is removed too.
    assert names_in(tmp_path) == {"whole", "model"}


def histories() -> dict[int, list[int]]:
    """Return histories; the model knows no item of the first two users."""
    return {601: [], 602: [7]} | training_histories()


class Rankings:
    """Counts the chunks that are ranked, and stops a scoring after some of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, maximum: int = 1000) -> None:
        self.n, rank = 0, Scorer._rank

        def count(scorer: Scorer, users: IndexedUsers, fresh: Longs) -> RecLists:
            self.n += 1
            if self.n > maximum:
                raise Stopped
            return rank(scorer, users, fresh)

        monkeypatch.setattr(Scorer, "_rank", count)


SCORING = ScoringConfig(device="cpu", chunk_size=10, workers=1, top_k=5)
# 62 users in chunks of 10
N_CHUNKS = 7


def stopped_scoring(
    folder: Path, after: int, monkeypatch: pytest.MonkeyPatch, config: ScoringConfig = SCORING
) -> tuple[Path, Path]:
    """Stop a scoring after some chunks; return its sequences and its checkpoint folder."""
    sequences = write_sequences(folder / "sequences.parquet", histories())
    assert_stops(
        monkeypatch,
        lambda patch: Rankings(patch, maximum=after),
        lambda: score(sequences, trained_model(), config, folder / "recs.parquet", folder / "checkpoints"),
    )
    assert not (folder / "recs.parquet").exists()
    return sequences, folder / "checkpoints"


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_scoring_stopped_after_some_chunks_gives_the_same_table(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences, folder = stopped_scoring(tmp_path, after, monkeypatch)
    ranked = Rankings(monkeypatch)
    report = score(sequences, trained_model(), SCORING, tmp_path / "recs.parquet", folder)
    assert ranked.n == N_CHUNKS - after
    whole = score(sequences, trained_model(), SCORING, tmp_path / "whole.parquet")
    assert (tmp_path / "recs.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert replace(report, seconds=0, out="") == replace(whole, seconds=0, out="")


def test_damaged_rankings_are_recomputed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences, folder = stopped_scoring(tmp_path, 6, monkeypatch)
    for number, place in ((1, 10), (2, 100), (4, -1)):
        contents = bytearray((folder / f"chunk-{number}.part").read_bytes())
        contents[place] ^= 64
        (folder / f"chunk-{number}.part").write_bytes(contents)
    # The checkpoint of one chunk in the place of another's.
    shutil.copy(folder / "chunk-5.part", folder / "chunk-0.part")
    ranked = Rankings(monkeypatch)
    score(sequences, trained_model(), SCORING, tmp_path / "recs.parquet", folder)
    assert ranked.n == N_CHUNKS - 6 + 4
    score(sequences, trained_model(), SCORING, tmp_path / "whole.parquet")
    assert (tmp_path / "recs.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


CHANGES: dict[str, tuple[dict[int, list[int]], dict[str, Any], int]] = {
    # Chunks without a change are not ranked again.
    "a history": ({5: [1001, 1002]}, {}, 2),
    "the id of a user": ({}, {}, 2),
    "top_k": ({}, {"top_k": 6}, N_CHUNKS),
    "keep_seen": ({}, {"keep_seen": True}, N_CHUNKS),
    "precision": ({}, {"precision": "int8"}, N_CHUNKS),
    "batch_tokens": ({}, {"batch_tokens": 16}, N_CHUNKS),
    "chunk_size": ({}, {"chunk_size": 9}, N_CHUNKS),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_chunks_are_ranked_again(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences, folder = stopped_scoring(tmp_path, 6, monkeypatch)
    changed, given, n_ranked = CHANGES[change]
    config = replace(SCORING, **given)
    now: Mapping[int, Sequence[int]] = histories() | changed
    if change == "the id of a user":
        now = {(999 if user == 5 else user): items for user, items in now.items()}
    write_sequences(sequences, now)
    ranked = Rankings(monkeypatch)
    score(sequences, trained_model(), config, tmp_path / "recs.parquet", folder)
    assert ranked.n == n_ranked
    score(sequences, trained_model(), config, tmp_path / "whole.parquet")
    assert (tmp_path / "recs.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_another_model_ranks_all_users_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences, folder = stopped_scoring(tmp_path, 6, monkeypatch)
    ranked = Rankings(monkeypatch)
    score(sequences, model_of("masked"), SCORING, tmp_path / "recs.parquet", folder)
    assert ranked.n == N_CHUNKS


def test_checkpoints_hold_no_users_that_are_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = {user: items for user, items in histories().items() if user % 3 == 0}
    score(write_sequences(tmp_path / "s", earlier), trained_model(), SCORING, tmp_path / "previous.parquet")
    config = replace(SCORING, previous=str(tmp_path / "previous.parquet"))
    sequences, folder = stopped_scoring(tmp_path, 4, monkeypatch, config)
    ranked = Rankings(monkeypatch)
    score(sequences, trained_model(), config, tmp_path / "recs.parquet", folder)
    assert ranked.n == N_CHUNKS - 4
    # Without the earlier table all users of a chunk are ranked, but its checkpoint holds only some of them.
    score(sequences, trained_model(), SCORING, tmp_path / "all.parquet", folder)
    assert ranked.n == 2 * N_CHUNKS - 4
    for out, options_given in (("recs.parquet", config), ("all.parquet", SCORING)):
        score(sequences, trained_model(), options_given, tmp_path / "whole.parquet")
        assert (tmp_path / out).read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_stopped_command_resumes_and_removes_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", histories())
    out = tmp_path / "recs.parquet"
    arguments = ("score", "--sequences", sequences, "--model", trained_model(), "--out", out, "--device", "cpu")
    sizes = ("--chunk-size", 10, "--workers", 1, "--top-k", 5)
    assert_stops(monkeypatch, lambda patch: Rankings(patch, maximum=3), lambda: run_cli(*arguments, *sizes))
    assert names_in(tmp_path) == {"sequences.parquet", ".recs.parquet.progress"}
    caplog.set_level("INFO", "batchrec")
    ranked = Rankings(monkeypatch)
    assert run_cli(*arguments, *sizes) == 0
    assert ranked.n == N_CHUNKS - 3
    assert "3 chunk(s) of an earlier run" in caplog.text
    score(sequences, trained_model(), SCORING, scratch() / "whole.parquet")
    assert out.read_bytes() == (scratch() / "whole.parquet").read_bytes()
    assert names_in(tmp_path) == {"sequences.parquet", "recs.parquet"}


def test_two_commands_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    sequences, out = write_sequences(tmp_path / "sequences.parquet", histories()), tmp_path / "recs.parquet"
    arguments = ("--sequences", sequences, "--model", trained_model(), "--out", out, "--device", "cpu")
    with open_checkpoint_dir(out) as folder:
        assert folder is not None
        score(sequences, trained_model(), SCORING, out, folder)
        before = {path.name: path.read_bytes() for path in folder.glob("*.part")}
        assert len(before) == N_CHUNKS
        assert run_cli("score", *arguments, "--top-k", 3) == 0
        assert {path.name: path.read_bytes() for path in folder.glob("*.part")} == before
    assert names_in(tmp_path) == {"sequences.parquet", "recs.parquet"}


def key_of(ids: pa.Array) -> str:
    return _key(ids, np.arange(len(ids)), np.ones(len(ids), bool))


@pytest.mark.parametrize("ids", [pa.array([4, 5, 6, 7]), pa.array(["a", "", "bc", "d"])], ids=["int64", "string"])
def test_a_key_depends_on_the_ids_not_on_their_place_in_memory(ids: pa.Array) -> None:
    assert key_of(ids.slice(1, 2)) == key_of(pa.array(ids.to_pylist()[1:3], ids.type))
    assert key_of(ids.slice(1, 2)) != key_of(ids.slice(2, 2))
    assert key_of(ids.slice(1, 0)) == key_of(ids.slice(0, 0))


def test_a_key_differs_for_texts_that_are_split_elsewhere() -> None:
    assert key_of(pa.array(["ab", "c"])) != key_of(pa.array(["a", "bc"]))
    assert key_of(pa.array(["", ""])) == key_of(pa.array(["", ""]))


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow beyond 4 KiB inside the block, as on a full disk: this applies to pytest's log too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_full(command: str, out: Path, capfd: pytest.CaptureFixture[str], *arguments: object) -> None:
    """Assert that a command on a full disk ends with one error line, and leaves nothing but its checkpoint folder."""
    before = names_in(out.parent)
    with small_files():
        assert run_cli(command, "--out", out, *arguments) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "batchrec: error:" in line]
    assert len(lines) == 1
    assert "cannot be written: File too large" in lines[0]
    assert names_in(out.parent) - {checkpoint_dir_of(out).name} == before


def test_a_full_disk_ends_build_sequences(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ratings = tmp_path / "ratings.csv"
    lines = [f"{row % 97},{row * 7919 % 10007},3,{1577836800 + row * 104729 % 1000003}" for row in range(3000)]
    ratings.write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines), encoding="utf-8")
    out = tmp_path / "sequences.parquet"
    out.write_bytes(b"the older one")
    assert_full("build-sequences", out, capfd, "--ratings", ratings)
    assert out.read_bytes() == b"the older one"


def test_a_full_disk_ends_a_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert_full("train", tmp_path / "model", capfd, "--sequences", training_sequences(), *options(CONFIG))


def test_a_full_disk_ends_a_scoring(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "recs.parquet"
    out.write_bytes(b"the older one")
    arguments = ("--sequences", training_sequences(), "--model", trained_model(), "--device", "cpu", "--top-k", 30)
    assert_full("score", out, capfd, *arguments)
    assert out.read_bytes() == b"the older one"


def test_too_little_disk_space_is_an_error_before_any_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    ranked = Rankings(monkeypatch)
    arguments = ("--sequences", training_sequences(), "--model", trained_model(), "--device", "cpu")
    assert run_cli("score", "--out", tmp_path / "recs.parquet", *arguments) == 2
    # 60 users: 32 bytes each, and 10 and 8 bytes for each of their 10 rows.
    assert "recs.parquet: needs up to 0.013 MB, and 0.001 MB are free" in capsys.readouterr().err
    assert ranked.n == 0
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP])
def test_a_job_on_a_disk_without_locks_runs_without_checkpoints(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with open_checkpoint_dir(tmp_path / "recs.parquet") as folder:
        assert folder is None
    assert names_in(tmp_path) == set()
