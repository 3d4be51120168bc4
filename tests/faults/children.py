"""Processes that run batchrec and can be killed: forked from one that has imported it, or started as a user does."""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.forkserver import CONTEXT, start_server
from tests.support.shared import scratch

PATIENCE_S = 120.0
_CHANGES = {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.chmod", "ctypes.dlopen"}


@dataclass(frozen=True)
class Limits:
    """The faults and the settings of a process.

    kill_at_change: number of the change of a file or folder before which it is killed; file_bytes: maximum size of a
    file; is_plain: whether it is started as a user does.
    """

    kill_at_change: int | None = None
    file_bytes: int | None = None
    is_plain: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    umask: int = 0o022


@dataclass
class Child:
    """A running process, its stderr so far, and the JSON lines in the first n_parsed characters of it."""

    process: Any
    said_by: int
    said: str = ""
    parsed: list[dict[str, Any]] = field(default_factory=list)
    n_parsed: int = 0
    is_over: bool = False
    started: float = field(default_factory=time.monotonic)

    def lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines on stderr so far."""
        while not self.is_over:
            try:
                more = os.read(self.said_by, 1 << 16)
            except BlockingIOError:
                break
            if not more:
                break
            self.said += more.decode()
        end = self.said.rfind("\n") + 1
        new, self.n_parsed = self.said[self.n_parsed : end], end
        self.parsed += [json.loads(line) for line in new.splitlines() if line.startswith("{")]
        return self.parsed

    @property
    def stage(self) -> str:
        """The stage that the process is in, or was in when it ended."""
        stages = [line["stage"] for line in self.lines() if "stage" in line]
        return stages[-1] if stages else "start"

    @property
    def errors(self) -> list[str]:
        return [line["message"] for line in self.lines() if "exit_code" in line]

    def wait_for(self, holds: Callable[[], bool]) -> bool:
        """Wait until a condition holds; return False if the process ends before that."""
        while not holds():
            if not self.process.is_alive():
                return False
            assert time.monotonic() < self.started + PATIENCE_S
            time.sleep(0.001)
        return True

    def wait_for_line(self, message: str) -> bool:
        return self.wait_for(lambda: any(line["message"] == message for line in self.lines()))

    def pause(self, seconds: float) -> None:
        """Let the process run for some seconds, or until it ends."""
        until = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() > until)

    def send(self, number: signal.Signals) -> None:
        # The process may have ended already.
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Suspend the process while the block runs, however long that takes on a busy machine."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Return the exit code, negative if a signal ended the process."""
        self.process.join(timeout_s)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
        assert code is not None, f"still running after {timeout_s} s: {self.said}"
        self.lines()
        self.is_over = True
        os.close(self.said_by)
        self.process.close()
        return int(code)


def start(folder: Path, arguments: Sequence[object], limits: Limits = Limits()) -> Child:
    """Start `batchrec` in a folder."""
    start_server()
    pipe = scratch() / f"said-{random.getrandbits(64):x}"
    os.mkfifo(pipe)
    said_by = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    process = CONTEXT.Process(target=_be_batchrec, args=(folder, [str(a) for a in arguments], pipe, limits))
    process.start()
    return Child(process, said_by)


def run(folder: Path, arguments: Sequence[object], limits: Limits = Limits()) -> tuple[int, Child]:
    """Run `batchrec` in a folder until it ends; return its exit code and the process."""
    child = start(folder, arguments, limits)
    return child.wait(), child


def _be_batchrec(folder: Path, arguments: list[str], pipe: Path, limits: Limits) -> None:
    os.chdir(folder)
    os.dup2(os.open(pipe, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pipe.unlink()
    os.umask(limits.umask)
    os.environ.update(limits.environment)
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    if limits.is_plain:
        os.execv(sys.executable, [sys.executable, "-m", "batchrec", *arguments])  # noqa: S606 - the tests' own words
    if limits.kill_at_change is not None:
        sys.addaudithook(_killer(limits.kill_at_change))
    from batchrec.cli import main  # noqa: PLC0415 - as late as in a process of its own

    sys.argv = ["batchrec", *arguments]
    main()


def _killer(number: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that counts changes of files and folders, and kills this process before the given one."""
    n_changes = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_changes
        is_write = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if is_write or event in _CHANGES:
            n_changes += 1
            if n_changes == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook
