"""Processes that train together, with the variables that torchrun sets, but forked: no launcher, no import of torch."""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchrec.cli import run
from batchrec.training import loop
from tests.support.forkserver import CONTEXT, start_server
from tests.support.shared import EXPORT, export_by_shape, scratch

N_RANKS = 2
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Ended:
    """The exit codes of the processes by rank, negative if a signal ended one, and what they have printed together."""

    exit_codes: list[int]
    stdout: str
    stderr: str


def run_together(*arguments: object, is_killed: bool = False) -> Ended:
    """Run a command in two processes; if one fails, the other one is killed, as torchrun does.

    is_killed: whether a process kills itself after it has saved a checkpoint.
    """
    start_server()
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": str(N_RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    variables |= {"LOCAL_WORLD_SIZE": str(N_RANKS), "TORCHELASTIC_RUN_ID": "tests", "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(N_RANKS):
        own = variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = CONTEXT.Process(target=_be_rank, args=(own, [str(a) for a in arguments], folder, is_killed))
        process.start()
        processes.append(process)
    processes[0].join(PATIENCE_S)
    if processes[0].exitcode == 0:
        processes[1].join(PATIENCE_S)
    for process in processes:
        # One that has ended keeps its exit code.
        process.kill()
        process.join()
    codes = [process.exitcode for process in processes if process.exitcode is not None]
    return Ended(codes, *[(folder / name).read_text() for name in ("out", "err")])


def _be_rank(variables: dict[str, str], arguments: Sequence[str], folder: Path, is_killed: bool) -> None:
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.update(variables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EXPORT, export_by_shape)
        if is_killed:
            save_checkpoint = loop._save_checkpoint

            def save_and_die(*saved: Any) -> None:
                save_checkpoint(*saved)
                os.kill(os.getpid(), signal.SIGKILL)

            patch.setattr(loop, "_save_checkpoint", save_and_die)
        sys.exit(run(arguments))
