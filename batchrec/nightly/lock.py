"""One run at a time on a folder of nights."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from batchrec.errors import ConfigError, LockedError
from batchrec.system.disk import make_folder


@contextmanager
def locked(nights: Path, otherwise: Literal["fail", "wait"]) -> Iterator[None]:
    """Let no other run work on a folder of nights until the block ends; the lock of a process ends with it.

    Raises LockedError where another run is at work and `otherwise` is fail, ConfigError for a folder that cannot be
    written.
    """
    file = nights / ".lock"
    try:
        make_folder(nights)
        lock = FileLock(file, timeout=0 if otherwise == "fail" else -1, mode=_mode(nights))
        lock.acquire()
        _leave_to_owner(file, nights)
    except Timeout as error:
        raise LockedError(f"{nights}: another run is at work. Wait for it, or pass --lock wait") from error
    except PermissionError as error:
        raise ConfigError(
            f"{error.filename or nights}: cannot be written: {error.strerror}. Start it as the user that it belongs to"
        ) from error
    except OSError as error:
        raise ConfigError(f"{nights}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _mode(nights: Path) -> int:
    """Return the mode of the lock: all who may write to the folder may hold it, and nobody else can block a run."""
    return 0o600 | (stat.S_IMODE(nights.stat().st_mode) & 0o022) * 3


def _leave_to_owner(file: Path, nights: Path) -> None:
    """Let a lock that root has made belong to the owner of the folder, whose runs could not hold it otherwise."""
    owner = nights.stat()
    if sys.platform != "win32" and os.geteuid() == 0 and owner.st_uid != 0 and file.stat().st_uid == 0:
        # Some network disks let nobody do that: then the user's run says whose the lock is.
        with suppress(OSError):
            os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=False)
