"""A process that publishes a prepared table, to be killed, or to fail."""

import multiprocessing
import os
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from batchrec.errors import BatchrecError
from batchrec.targets import PublishedTable, open_target

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["batchrec.targets", "s3fs", "tests.warehouse.publishing"])


def start(out: str, table: PublishedTable, file_bytes: int | None = None) -> Any:
    """Start a process that publishes a table, and wait until it begins; no file of it grows beyond file_bytes.

    Its exit code is that of an error, with which it prints one line.
    """
    begun, begins = _context.Pipe(duplex=False)
    process = _context.Process(
        target=_publish, args=(out, table, Path.cwd(), dict(os.environ), begins, file_bytes), daemon=True
    )
    process.start()
    begins.close()
    with begun:
        assert begun.recv() == "begins"
    return process


def _publish(  # noqa: PLR0917 - what a new process does not share
    out: str,
    table: PublishedTable,
    folder: Path,
    environment: dict[str, str],
    begins: Connection,
    file_bytes: int | None,
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    try:
        target = open_target(out)
        target.check_writable()
        begins.send("begins")
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        with target.replacing(table):
            pass
    except BatchrecError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
