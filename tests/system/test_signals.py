import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from batchrec.errors import InputError
from batchrec.system.signals import (
    Terminated,
    can_resume,
    interrupted_by_signals,
    signals_first,
    signals_waiting,
    stopped_by_signals,
)
from batchrec.tables.parquet import write_parquet
from batchrec.tables.queries import connect
from tests.support.models import names_in, trained_model, training_sequences, write_sequences
from tests.support.params import slow_except

ENDLESS = "select a.range as user_id, b.range as item_id, 1 as timestamp from range(1000000) a, range(1000000) b"
# Longer than any wait here, unless the machine is stuck.
PATIENCE_S = 120.0
ENDLESS_TRAINING = ("--max-epochs", "100000", "--patience", "100000", "--device", "cpu", "--hidden-size", "8")


def ended_by(
    folder: Path, program: list[str], is_at_work: Callable[[], bool], *numbers: signal.Signals
) -> tuple[int, str]:
    """Start a program in a folder, send it signals once it is at work, and return its exit code and stderr."""
    with (folder.parent / "stderr").open("w+", encoding="utf-8") as stderr:
        started = [sys.executable, *program]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            started, cwd=folder, stderr=stderr, stdout=subprocess.DEVNULL, env=environment
        ) as process:
            try:
                wait_for(lambda: is_at_work() or process.poll() is not None)
                for number in numbers:
                    process.send_signal(number)
                    time.sleep(0.05)
                process.wait(PATIENCE_S)
            finally:
                process.kill()
        stderr.seek(0)
        return process.returncode, stderr.read()


def wait_for(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def has_temporary(folder: Path, start: str) -> bool:
    # Not a probe or the checkpoint folder: these exist before the work starts.
    return any(name.startswith(start) and name.endswith(".tmp") for name in names_in(folder))


@pytest.mark.parametrize(
    ("number", "exit_code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_long_query_is_interrupted(folder: Path, number: signal.Signals, exit_code: int, word: str) -> None:
    (folder / "q.sql").write_text(ENDLESS, encoding="utf-8")
    (folder / "sequences.parquet").write_text("old", encoding="utf-8")
    program = ["-m", "batchrec", "build-sequences", "--query", "q.sql", "--memory-limit", "200MB"]
    # The spill folder exists before the query; a file in it does not.
    assert ended_by(folder, program, lambda: any(folder.glob(".batchrec.*.tmp/*")), number) == (
        exit_code,
        f"batchrec: {word}\n",
    )
    assert names_in(folder) == {"q.sql", "sequences.parquet"}
    assert (folder / "sequences.parquet").read_text(encoding="utf-8") == "old"


def test_a_query_in_the_thread_of_the_next_batch_is_interrupted(folder: Path) -> None:
    program = f"""
from pathlib import Path
import pyarrow as pa
from batchrec.tables.queries import connect
from batchrec.system.signals import stopped_by_signals
from batchrec.tables.parquet import write_parquet
def batches():
    yield from rows.to_arrow_reader(100)
with stopped_by_signals(), connect(Path()) as con:
    rows = con.sql("select * from ({ENDLESS}) where user_id + item_id < 0")
    schema = pa.schema([("user_id", pa.int64())])
    write_parquet(batches(), schema, Path("out.parquet"))
"""  # noqa: S608 - the query is ours
    exit_code, _ = ended_by(folder, ["-c", program], lambda: has_temporary(folder, ".out.parquet"), signal.SIGTERM)
    assert exit_code == 143
    assert names_in(folder) == set()


def test_work_is_interrupted_while_the_main_thread_waits_in_a_library() -> None:
    """There no handler of Python can run. The library of the test cannot be interrupted, so the program ends itself."""
    program = """
import hashlib, os, signal, threading
from batchrec.system.signals import interrupted_by_signals, stopped_by_signals
with stopped_by_signals(), interrupted_by_signals(lambda: os._exit(7)):
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000_000)
    os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7


def test_a_signal_at_the_start_of_that_thread_waits_for_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_started, may_continue, ended = threading.Event(), threading.Event(), []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            has_started.set()
            may_continue.wait(PATIENCE_S)
            yield pa.record_batch({"user_id": [1]})
        finally:
            ended.append(True)

    def start_and_be_interrupted(thread: threading.Thread) -> None:
        start(thread)
        has_started.wait(PATIENCE_S)
        start(threading.Timer(0.2, may_continue.set))
        raise KeyboardInterrupt

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(batches(), pa.schema([("user_id", pa.int64())]), tmp_path / "out.parquet")
    assert ended == [True]
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize(
    "numbers",
    slow_except(
        {
            "once": [signal.SIGTERM],
            "three times": [signal.SIGTERM] * 3,
            "two signals": [signal.SIGTERM, signal.SIGINT],
        },
        "two signals",
    ),
)
def test_training_is_terminated_and_the_old_model_stays(folder: Path, numbers: list[signal.Signals]) -> None:
    shutil.copytree(trained_model(), folder / "model")
    manifest = (folder / "model" / "manifest.json").read_bytes()
    program = ["-m", "batchrec", "train", "--sequences", str(training_sequences()), *ENDLESS_TRAINING]
    # The log line of an epoch, and the folder, appear before its checkpoint does.
    checkpoint = folder / ".model.progress" / "training.part"
    exit_code, said = ended_by(folder, program, checkpoint.exists, *numbers)
    assert exit_code == 143
    assert said.splitlines()[-1] == "batchrec: terminated. Run the same command again to resume"
    assert "Traceback" not in said
    assert names_in(folder) == {"model", ".model.progress"}
    assert (folder / "model" / "manifest.json").read_bytes() == manifest


@pytest.mark.slow
def test_terminated_scoring_logs_a_json_line(folder: Path) -> None:
    sequences = write_sequences(folder.parent / "s.parquet", {user: [1000 + user % 40] for user in range(200_000)})
    (folder / "recs.parquet").write_text("old", encoding="utf-8")
    program = ["-m", "batchrec", "score", "--sequences", str(sequences), "--model", str(trained_model())]
    program += ["--device", "cpu", "--chunk-size", "300", "--batch-tokens", "8", "--log-format", "json"]
    exit_code, said = ended_by(folder, program, lambda: has_temporary(folder, ".recs.parquet"), signal.SIGTERM)
    assert exit_code == 143
    line = json.loads(said.splitlines()[-1])
    message = "terminated. Run the same command again to resume"
    assert (line["level"], line["message"], line["exit_code"]) == ("ERROR", message, 143)
    assert names_in(folder) <= {"recs.parquet", ".recs.parquet.progress"}
    assert (folder / "recs.parquet").read_text(encoding="utf-8") == "old"


def test_a_signal_says_that_the_command_can_resume() -> None:
    with stopped_by_signals(), can_resume(), pytest.raises(Terminated) as raised:
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.message == "terminated. Run the same command again to resume"


def test_a_swallowed_signal_interrupts_the_work_after_it() -> None:
    def swallowing() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            swallowed.append(True)

    swallowed: list[bool] = []
    query = f"select count(*) from ({ENDLESS}) where user_id + item_id < 0"  # noqa: S608 - the query is ours
    with stopped_by_signals(), pytest.raises(Terminated), signals_first(), connect() as con:  # noqa: PT012 - in this order
        swallowing()
        con.execute(query)
    with stopped_by_signals(), pytest.raises(Terminated), connect():
        swallowing()
    assert swallowed == [True, True]


def test_a_signal_replaces_the_error_of_the_work_it_interrupts() -> None:
    def failing() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated as error:
            raise InputError("the file cannot be read: query interrupted") from error

    with stopped_by_signals(), pytest.raises(Terminated), signals_first():
        failing()
    with stopped_by_signals(), pytest.raises(InputError), signals_first():
        raise InputError("the file cannot be read")


def test_a_second_signal_does_not_interrupt_the_clean_up() -> None:
    cleaned = False
    with stopped_by_signals(), pytest.raises(Terminated):  # noqa: PT012 - the second arrives during the clean-up of the first
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            cleaned = True
    assert cleaned


def test_the_handlers_of_the_calling_program_are_restored() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with stopped_by_signals():
        assert signal.getsignal(signal.SIGTERM) is not former
    assert signal.getsignal(signal.SIGTERM) is former


_SIGNAL_AT_THE_END = """
import os, signal, sys, threading
from batchrec.cli.running import main

def join(thread, *timeout, own=threading.Thread.join):
    # The thread that interrupts queries is joined when the handlers of signals are reset.
    os.kill(os.getpid(), signal.SIGTERM)
    own(thread, *timeout)

threading.Thread.join = join
sys.argv = ["batchrec", "--version"]
main()
"""


def test_a_signal_after_the_command_does_not_change_its_exit_code() -> None:
    ended = subprocess.run([sys.executable, "-c", _SIGNAL_AT_THE_END], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("batchrec")


def test_a_signal_that_waits_ends_the_work_by_its_interrupt() -> None:
    interrupted = threading.Event()
    interrupt = interrupted_by_signals(interrupted.set)
    with stopped_by_signals(), pytest.raises(Terminated), interrupt, signals_waiting(True):  # noqa: PT012 - in this order
        signal.raise_signal(signal.SIGINT)
        assert interrupted.wait(PATIENCE_S)
        # A part of the work that can be broken off is not begun.
        with pytest.raises(Terminated), signals_waiting(False):
            pytest.fail("the part has begun")


def test_a_signal_breaks_off_a_part_of_work_that_waits() -> None:
    with stopped_by_signals(), signals_waiting(True), pytest.raises(Terminated), signals_waiting(False):
        signal.raise_signal(signal.SIGTERM)
