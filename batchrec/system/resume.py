"""The hidden folder next to an output in which a killed run of a command leaves its checkpoints to the next run."""

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
from batchrec.system.disk import has_no_locks
from batchrec.system.signals import can_resume

_log = logging.getLogger(__name__)

_LOCK = "lock"


@contextmanager
def open_checkpoint_dir(out: Path) -> Iterator[Path | None]:
    """Yield the checkpoint folder of the job that writes `out`; None if another run uses it, or its disk has no locks.

    The folder is removed if the block ends without an error, or if it is empty then. Raises ConfigError if it cannot be
    made.
    """
    check_writable(out)
    folder = checkpoint_dir_of(out)
    # The lock ends with the process: a run that was killed blocks nobody.
    lock = FileLock(folder / _LOCK, timeout=0, mode=0o600, fallback_to_soft=False)
    try:
        folder.mkdir(0o700, exist_ok=True)
        if not _is_ours(folder):
            raise ConfigError(
                f"{folder}: belongs to another user, or is not a folder, and cannot be trusted. Remove it"
            )
        lock.acquire()
    except (Timeout, FileNotFoundError):  # FileNotFoundError: another run is removing it
        _log.info("another run is writing %s: this run writes no checkpoints", out)
        yield None
        return
    except OSError as error:
        if not has_no_locks(error):
            raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from error
        _log.info("the disk of %s has no locks: this run writes no checkpoints", out)
        shutil.rmtree(folder, ignore_errors=True)
        yield None
        return
    is_done = False
    try:
        with can_resume():
            yield folder
        is_done = True
    finally:
        if is_done or not _checkpoints(folder):
            _remove(folder)
        lock.release()


def checkpoint_dir_of(out: Path) -> Path:
    """Return the path of the checkpoint folder: next to `out`, or next to its target if `out` is a link."""
    target = Path(os.path.realpath(out))
    return target.parent / f".{target.name[:100]}.progress"


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != _LOCK]


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held, the lock last: until then no other run starts in it."""
    for path in _checkpoints(folder):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
