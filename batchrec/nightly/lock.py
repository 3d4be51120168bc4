"""One run at a time on a folder of nights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from batchrec.errors import ConfigError, LockedError


@contextmanager
def locked(nights: Path, otherwise: Literal["fail", "wait"]) -> Iterator[None]:
    """Let no other run work on a folder of nights until the block ends; the lock of a process ends with it.

    Raises LockedError where another run is at work and `otherwise` is fail, ConfigError for a folder that cannot be
    written.
    """
    lock = FileLock(nights / ".lock", timeout=0 if otherwise == "fail" else -1, mode=0o600)
    try:
        nights.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise LockedError(f"{nights}: another run is at work. Wait for it, or pass --lock wait") from error
    except OSError as error:
        raise ConfigError(f"{nights}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
