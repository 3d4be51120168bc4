"""Calls to the disk that the standard library lacks: sync, link or copy, exchange and remove; hash or map a file."""

import ctypes
import errno
import hashlib
import logging
import mmap
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

# Error codes of disks and systems that cannot sync a folder, link a file, or lock one.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
_CANNOT_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def put_on_disk(paths: Iterable[Path]) -> None:
    """Wait until the disk holds the contents of files, and the names in folders, as they are now (fsync).

    Raises OSError if it cannot: a full disk may show only here.
    """
    for path in paths:
        is_folder = path.is_dir()
        if is_folder and sys.platform == "win32":  # Windows cannot open folders
            continue
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError as error:
            # Some network disks do not support fsync of a folder: there is nothing to wait for.
            if not is_folder or error.errno not in _CANNOT_SYNC:
                raise
        finally:
            os.close(opened)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents so that a power cut does not lose them; an existing folder is not changed.

    mode: the mode of the folder itself, before the umask.
    """
    if folder.is_dir():
        # A run that was killed may have just made it. A folder whose parent cannot be opened is older.
        with suppress(OSError):
            put_on_disk([folder.parent])
        return
    make_folder(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    put_on_disk([folder.parent])


def link_or_copy(file: Path, name: Path) -> None:
    """Link a file to a second name; if that is impossible, copy it. A copy is private until it is complete."""
    if not try_link(file, name):
        name.touch(0o600, exist_ok=False)
        shutil.copyfile(file, name)
        shutil.copymode(file, name)


def try_link(file: Path, name: Path) -> bool:
    """Link a file to a second name. Return False if the disk cannot link it or the file belongs to another user."""
    # Only the owner of a file may change its mode, under any of its names.
    if hasattr(os, "geteuid") and file.stat().st_uid != os.geteuid():
        return False
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        return False
    return True


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, by renameat2(2) on Linux or renamex_np on macOS; return whether that worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        at_fdcwd, rename_exchange = -100, 2
        failed = libc.renameat2(at_fdcwd, names[0], at_fdcwd, names[1], rename_exchange)
    elif sys.platform == "darwin":
        rename_swap = 2
        failed = libc.renamex_np(*names, rename_swap)
    else:
        return False
    if failed and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return not failed


def has_no_locks(error: OSError) -> bool:
    """Return whether the error of a lock says that the disk of its file has none."""
    return error.errno in _CANNOT_LOCK


def remove(path: Path) -> None:
    """Remove a file, a link or a folder if it exists; if that fails, log a warning."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s: cannot be removed: %s", path, error.strerror)


def mapped(file: Path) -> memoryview:
    """Map a file into memory, read-only: it takes memory only while there is some to spare. Raises OSError."""
    with file.open("rb") as opened:
        # An empty file cannot be mapped.
        is_empty = not opened.seek(0, os.SEEK_END)
        return memoryview(b"" if is_empty else mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file, which may be larger than memory."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def intact_sha256(file: Path) -> str | None:
    """Return the SHA-256 of a file; None if it is missing, or its disk cannot read it any more."""
    try:
        return file_sha256(file) if file.is_file() else None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def is_intact(file: Path, sha256: str | None) -> bool:
    """Return whether a file still has its SHA-256; False if that is not known, which is None."""
    return sha256 is not None and intact_sha256(file) == sha256
