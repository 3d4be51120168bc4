"""Temporary neighbours of an output: private while they are made, removed by the next run where theirs was killed.

Each is locked by the process that makes it. The kernel lets go of the lock when the process ends, in whatever way: one
whose lock is free belongs to nobody.
"""

import glob
import logging
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchrec.system.disk import try_link

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)


def beside(out: Path) -> Path:
    """Name a temporary neighbour of `out`, or of what `out` links to: one rename puts it in its place."""
    target = Path(os.path.realpath(out))
    return target.parent / f".{target.name[:100]}.{secrets.token_hex(4)}.tmp"


def probe_of(out: Path) -> Path:
    """Name a neighbour of `out` that is there for less than a moment, without a lock: the next run may remove it."""
    return beside(out).with_suffix(".probe")


def modes_by_umask(out: Path) -> tuple[int, int]:
    """Tell what modes a new file and a new folder beside `out` have, by the umask and the folder they lie in."""
    # Only setting the umask tells it, and for all threads: files of others would get the wrong modes.
    while True:
        probe = probe_of(out)
        probe.mkdir()
        # Another run may take it for that of a dead one.
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(probe.stat().st_mode)
            probe.rmdir()
            return mode & 0o666, mode


@contextmanager
def temporary_file(out: Path, contents: Path | None = None) -> Iterator[Path]:
    """Yield a file beside `out`, for its owner alone; one of that name is removed at the end.

    contents: the file that it is a second name of, or a copy; it is empty without one. It is to be written in place:
    another file of its name is not locked.
    """

    def make(path: Path) -> None:
        if contents is None or not try_link(contents, path):
            path.touch(0o600, exist_ok=False)

    with _claimed(out, make) as path:
        try:
            # Only now: the lock keeps others from taking a copy that is still being made for a dead run's.
            if contents is not None and not path.samefile(contents):
                shutil.copyfile(contents, path)
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`, for its owner alone; one of that name is removed at the end."""
    with _claimed(out, lambda path: path.mkdir(0o700)) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _claimed(out: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a temporary neighbour of `out` and hold its lock, those of dead runs being removed first."""
    _remove_dead(out)
    while True:
        path = beside(out)
        make(path)
        lock = _lock(path, wait=True)
        # Between the two steps another run may have taken it for a dead one's.
        if path.exists():
            break
        if lock is not None:
            os.close(lock)
    try:
        yield path
    finally:
        if lock is not None:
            os.close(lock)


def _remove_dead(out: Path) -> None:
    """Remove the temporary neighbours of `out` that no process holds, and its probes."""
    target = Path(os.path.realpath(out))
    name = target.name[:100]
    for path in target.parent.glob(f".{glob.escape(name)}.*"):
        found = re.fullmatch(re.escape(f".{name}.") + r"[0-9a-f]{8}\.(tmp|probe)", path.name)
        if found is None:
            continue
        if found[1] == "probe":
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
            continue
        lock = _lock(path, wait=False)
        if lock is not None:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                _log.info("removed %s, which a run that was killed has left", path)
            os.close(lock)


def _lock(path: Path, wait: bool) -> int | None:
    """Lock a file or folder until what is given is closed; None where that cannot be done, or another has it."""
    if sys.platform == "win32":  # where an open file can be neither renamed nor removed
        return None
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened
