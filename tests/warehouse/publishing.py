"""A process that publishes a prepared table, and is killed, or fails."""

import multiprocessing
import multiprocessing.util
import os
import resource
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from batchrec.errors import BatchrecError
from batchrec.targets import PublishedTable, open_target

_context = multiprocessing.get_context("forkserver")
# Missing ones are skipped. Those of pyiceberg and ADBC take a second that each writer would spend again.
_context.set_forkserver_preload(
    ["batchrec.targets", "s3fs", "pyiceberg.catalog.sql", "adbc_driver_postgresql.dbapi", "tests.warehouse.publishing"]
)
# Made now, where the process may, not in the folder of one test.
multiprocessing.util.get_temp_dir()


@dataclass(frozen=True)
class Limits:
    """Limits of a writer. file_bytes: no file of it grows beyond; seconds: until it is killed."""

    file_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Writer:
    """A process that publishes a table. messages: from it."""

    process: Any
    messages: Connection

    def error(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and the message of the error."""
        message = self.messages.recv()
        return self.wait(), message

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        self.process.join()
        self.messages.close()
        return int(self.process.exitcode)


def start(out: str, table: PublishedTable, limits: Limits = Limits()) -> Writer:
    """Start a process that publishes a table, and wait until it begins."""
    messages, sender = _context.Pipe(duplex=False)
    process = _context.Process(
        target=_publish, args=(out, table, Path.cwd(), dict(os.environ), sender, limits), daemon=True
    )
    process.start()
    sender.close()
    assert messages.recv() == "begins"
    return Writer(process, messages)


def _publish(  # noqa: PLR0917 - what a new process does not share
    out: str,
    table: PublishedTable,
    folder: Path,
    environment: dict[str, str],
    sender: Connection,
    limits: Limits,
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    if "pyiceberg.catalog" in sys.modules:
        catalog: Any = sys.modules["pyiceberg.catalog"]
        # It has read the environment of the server.
        catalog._ENV_CONFIG = catalog.Config()
    try:
        target = open_target(out)
        target.check_writable()
        sender.send("begins")
        if limits.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
        if limits.seconds is not None:
            # A signal that nobody handles, from the kernel: at its time also if the test is busy with its polls.
            signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        with target.replacing(table):
            pass
    except BatchrecError as error:
        sender.send(str(error))
        sys.exit(error.exit_code)
