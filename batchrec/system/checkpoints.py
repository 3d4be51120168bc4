"""Checkpoints of a job that may be killed. Each is a sealed file; a part of the job whose seal is broken is redone."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchrec.errors import ConfigError
from batchrec.system.disk import mapped
from batchrec.system.versions import version_of

_log = logging.getLogger(__name__)

_SUFFIX = ".part"
_DIGEST = 32
# Arrays start at multiples of this many bytes, as numpy's own files do.
_ALIGNMENT = 64
# Changes with the layout of the contents, so that a checkpoint of another layout does not fit.
_LAYOUT = b"2"


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint: read-only arrays of any shape, and JSON values."""

    arrays: dict[str, NDArray[Any]]
    metadata: dict[str, Any]


def fingerprint_of(depends_on: Mapping[str, object], *packages: ModuleType) -> bytes:
    """Return 32 bytes for what the checkpoints of a job depend on: JSON values, and the versions of packages."""
    versions = {package.__name__: str(package.__version__) for package in (*packages, np)}
    versions["batchrec"] = str(version_of("batchrec"))
    return sha256(json.dumps([depends_on, versions], sort_keys=True).encode()).digest()


def checkpoints_in(folder: Path) -> list[str]:
    """List the names of the checkpoints in a folder."""
    return sorted(file.stem for file in folder.glob(f"*{_SUFFIX}"))


def broken_checkpoints(folder: Path) -> list[str]:
    """List the names of the checkpoints in a folder whose seal does not match. Raises OSError if one is unreadable."""
    broken = []
    for name in checkpoints_in(folder):
        if _opened(name, mapped(folder / f"{name}{_SUFFIX}")) is None:
            broken.append(name)
    return broken


class CheckpointStore:
    """The checkpoints of a job by name, each a file in `folder`, which is made with the first checkpoint.

    A file holds a seal, the fingerprint of its layout and of what the checkpoints depend on, and the contents: the
    length of a header, 8 bytes, the header as JSON, and the arrays. The seal is the SHA-256 of the checkpoint's name
    and of everything after the seal. Arrays are written from where they are and mapped when they are read, because they
    may be half of the machine's memory. A file is replaced by another one, never changed, so arrays stay as they were
    read. The old file takes disk space until its arrays are gone; before that, Windows would refuse to replace it.
    """

    def __init__(self, folder: Path, fingerprint: bytes) -> None:
        self._folder = folder
        self._fingerprint = sha256(_LAYOUT + fingerprint).digest()

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, object]) -> None:
        """Write a checkpoint, replacing an older one. Raises ConfigError if it cannot be written."""
        laid_out = {key: np.require(array, requirements="C") for key, array in arrays.items()}
        contents = list(_contents(laid_out, metadata))
        file = self._file(name)
        # One name for all attempts: with new names every kill would leave a file.
        unfinished = file.with_suffix(".new")
        try:
            self._folder.mkdir(0o700, exist_ok=True)
            unfinished.touch(0o600)
            with unfinished.open("wb") as opened:
                opened.write(_seal_of(name, self._fingerprint, *contents) + self._fingerprint)
                opened.writelines(contents)
            # Not forced to the disk: after a power cut the seal shows whether the file is complete.
            unfinished.replace(file)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise ConfigError(f"{self._folder}: cannot be written: {error.strerror or error}") from error

    def read(self, name: str) -> Checkpoint | None:
        """Return a checkpoint; None if it does not exist, or, with a warning, if it is damaged or does not fit."""
        file = self._file(name)
        try:
            stored = mapped(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s: cannot be read: %s. Computing it again", file, error.strerror)
            return None
        opened = _opened(name, stored)
        if opened is None:
            _log.warning("%s: damaged: its seal does not match. Computing it again", file)
            return None
        fingerprint, contents = opened
        if fingerprint != self._fingerprint:
            _log.warning("%s: made with other input, options or versions. Computing it again", file)
            return None
        return _checkpoint_of(contents)

    def remove(self, name: str) -> None:
        """Remove a checkpoint if it exists."""
        self._file(name).unlink(missing_ok=True)

    def __len__(self) -> int:
        """Return the number of checkpoints, usable or not."""
        return len(checkpoints_in(self._folder))

    def n_bytes(self) -> int:
        """Return the size of all checkpoints in bytes."""
        return sum(file.stat().st_size for file in self._folder.glob(f"*{_SUFFIX}"))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def _contents(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, object]) -> Iterator[bytes | memoryview]:
    """Yield the parts of a checkpoint's contents: the header, and each array and what fills the space before it."""
    described = {key: (array.dtype.str, array.shape) for key, array in arrays.items()}
    header = json.dumps({"arrays": described, "metadata": metadata}).encode()
    yield len(header).to_bytes(8, "little") + header
    end = 8 + len(header)
    for array in arrays.values():
        yield bytes(-end % _ALIGNMENT)
        yield array.reshape(-1).view(np.uint8).data
        end += -end % _ALIGNMENT + array.nbytes


def _checkpoint_of(contents: memoryview) -> Checkpoint:
    """Read what `_contents` yields; the arrays are those of the memory."""
    end = 8 + int.from_bytes(contents[:8], "little")
    header = json.loads(bytes(contents[8:end]))
    arrays: dict[str, NDArray[Any]] = {}
    for key, (dtype, shape) in header["arrays"].items():
        start = end + -end % _ALIGNMENT
        arrays[key] = np.ndarray(shape, dtype, contents, start)
        end = start + arrays[key].nbytes
    return Checkpoint(arrays, header["metadata"])


def _opened(name: str, stored: memoryview) -> tuple[bytes, memoryview] | None:
    """Return the fingerprint and the contents of a stored checkpoint; None if its seal does not match."""
    seal, fingerprint, contents = stored[:_DIGEST], bytes(stored[_DIGEST : 2 * _DIGEST]), stored[2 * _DIGEST :]
    return (fingerprint, contents) if seal == _seal_of(name, fingerprint, contents) else None


def _seal_of(name: str, fingerprint: bytes, *contents: bytes | memoryview) -> bytes:
    digest = sha256(json.dumps(name).encode() + fingerprint)
    for part in contents:
        digest.update(part)
    return digest.digest()
