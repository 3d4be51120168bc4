"""The lock of the archive: one run at a time."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from batchrec.errors import ConfigError, LockedError
from batchrec.system.disk import has_no_locks, make_folder


@contextmanager
def locked(folder: Path, if_held: Literal["fail", "wait"]) -> Iterator[None]:
    """Hold the lock of the archive in `folder` until the block ends. The lock ends with its process at the latest.

    Raises LockedError if another run holds it and `if_held` is fail, ConfigError if the folder cannot be written, or if
    its disk has no locks.
    """
    file = folder / ".lock"
    try:
        make_folder(folder)
        timeout = 0 if if_held == "fail" else -1
        # Instead of a lock filelock would make a file, which a run that is killed on another machine leaves for good.
        lock = FileLock(file, timeout=timeout, mode=_mode(folder), fallback_to_soft=False)
        lock.acquire()
        _leave_to_owner(file, folder)
    except Timeout as error:
        raise LockedError(f"{folder}: another run is in progress. Wait for it to end, or pass --lock wait") from error
    except PermissionError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written: {error.strerror}. Run batchrec as the user who owns it"
        ) from error
    except OSError as error:
        if has_no_locks(error):
            raise ConfigError(
                f"{folder}: its disk has no locks, which keep two runs apart: {error.strerror}. Pass --nights on "
                "another disk, or mount this one with locks"
            ) from error
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _mode(folder: Path) -> int:
    """Return the mode of the lock file: only users who may write to the folder can hold the lock and block a run."""
    return 0o600 | (stat.S_IMODE(folder.stat().st_mode) & 0o022) * 3


def _leave_to_owner(file: Path, folder: Path) -> None:
    """Hand a lock file that root created to the owner of the folder, whose runs could not lock it otherwise."""
    owner = folder.stat()
    if sys.platform != "win32" and os.geteuid() == 0 and owner.st_uid != 0 and file.stat().st_uid == 0:
        # Some network disks allow nobody to do that. Then the owner's run fails with an error that names the file.
        with suppress(OSError):
            os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=False)
