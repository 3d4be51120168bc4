"""The hidden folder beside an output in which one run of a command leaves its progress to the next."""

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from batchrec.errors import ConfigError
from batchrec.system.atomic import check_writable
from batchrec.system.signals import can_resume

_log = logging.getLogger(__name__)

_LOCK = "lock"


@contextmanager
def open_checkpoint_dir(out: Path) -> Iterator[Path | None]:
    """Yield the folder for the progress of the job that writes `out`; None where another run of it is at work there.

    It is removed when the block ends without an error, and stays after one if there is anything in it. Raises
    ConfigError where it cannot be made.
    """
    check_writable(out)
    folder = checkpoint_dir_of(out)
    # The lock dies with the process, so one that was killed is in nobody's way.
    lock = FileLock(folder / _LOCK, timeout=0, mode=0o600)
    try:
        folder.mkdir(0o700, exist_ok=True)
        if not _is_ours(folder):
            raise ConfigError(f"{folder}: is no folder of yours, and what lies in it cannot be trusted. Remove it")
        lock.acquire()
    except (Timeout, FileNotFoundError):  # not found: another run is just removing it
        _log.info("another run is writing %s: this one goes on without keeping its progress", out)
        yield None
        return
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from error
    is_done = False
    try:
        with can_resume():
            yield folder
        is_done = True
    finally:
        if is_done or not _parts(folder):
            _remove(folder)
        lock.release()


def checkpoint_dir_of(out: Path) -> Path:
    """Name the folder, beside `out` or what `out` links to."""
    target = Path(os.path.realpath(out))
    return target.parent / f".{target.name[:100]}.progress"


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != _LOCK]


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held, the lock last: until then no other run begins in it."""
    for path in _parts(folder):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
