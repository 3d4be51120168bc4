"""Temporary files and folders next to an output. Private while written; the next run removes what a killed run left.

The process that makes one holds a lock on it. The kernel releases the lock when the process ends, in whatever way, so
a temporary file whose lock is free belongs to no run.
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


def _temporary_path(out: Path) -> Path:
    """Return a new name next to `out`, or next to its target if `out` is a link: on the same disk, for a rename."""
    target = Path(os.path.realpath(out))
    return target.parent / f".{target.name[:100]}.{secrets.token_hex(4)}.tmp"


def probe_path(out: Path) -> Path:
    """Return a new name next to `out` for a file without a lock, which the next run may remove at any time."""
    return _temporary_path(out).with_suffix(".probe")


def modes_by_umask(out: Path) -> tuple[int, int]:
    """Return the modes of a new file and of a new folder next to `out`, by the umask and the parent folder."""
    # The umask can only be read by setting it, for all threads: their files would get the wrong modes. Make a probe.
    while True:
        probe = probe_path(out)
        probe.mkdir()
        # Another run may remove the probe as that of a killed run.
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(probe.stat().st_mode)
            probe.rmdir()
            return mode & 0o666, mode


@contextmanager
def temporary_file(out: Path, contents: Path | None = None) -> Iterator[Path]:
    """Yield a file next to `out` that only its owner can read; a file of that name is removed at the end.

    contents: a file to link or copy; without one the file is empty. Write to the file itself: the lock does not hold
    for another file moved to its name.
    """

    def make(path: Path) -> None:
        if contents is None or not try_link(contents, path):
            path.touch(0o600, exist_ok=False)

    with _claimed(out, make) as path:
        try:
            # Copied under the lock: others would remove a half-made copy as that of a killed run.
            if contents is not None and not path.samefile(contents):
                shutil.copyfile(contents, path)
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder next to `out` that only its owner can open; a folder of that name is removed at the end."""
    with _claimed(out, lambda path: path.mkdir(0o700)) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _claimed(out: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a temporary file or folder next to `out` and hold its lock; first remove those of killed runs."""
    _remove_dead(out)
    while True:
        path = _temporary_path(out)
        make(path)
        lock = _lock(path, wait=True)
        # Before it was locked another run may have removed it as that of a killed run.
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
    """Remove the temporary files and folders of `out` that no process has locked, and its probes."""
    target = Path(os.path.realpath(out))
    name = target.name[:100]
    for path in target.parent.glob(f".{glob.escape(name)}.*"):
        match = re.fullmatch(re.escape(f".{name}.") + r"[0-9a-f]{8}\.(tmp|probe)", path.name)
        if match is None:
            continue
        if match[1] == "probe":
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
            continue
        lock = _lock(path, wait=False)
        if lock is not None:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                _log.info("removed %s, left by a run that was killed", path)
            os.close(lock)


def _lock(path: Path, wait: bool) -> int | None:
    """Lock a file or folder; return the descriptor that holds the lock, None if it cannot be locked or is locked."""
    if sys.platform == "win32":  # Windows can neither rename nor remove an open file
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
