"""Finished parts of a job that may be killed, each in a sealed file: what does not fit its seal is done again."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from batchrec.errors import ConfigError

_log = logging.getLogger(__name__)

_SUFFIX = ".part"
_DIGEST = 32


@dataclass(frozen=True)
class Checkpoint:
    """What was kept: arrays of any shape, not to be written to, and JSON values."""

    arrays: dict[str, NDArray[Any]]
    metadata: dict[str, Any]


def fingerprint_of(depends_on: Mapping[str, object], *packages: ModuleType) -> bytes:
    """Sum up, in 32 bytes, what the parts of a job depend on: JSON values, and the versions of packages."""
    versions = {package.__name__: str(package.__version__) for package in (*packages, np)}
    # A checkout on the path has no version.
    with suppress(PackageNotFoundError):
        versions["batchrec"] = version("batchrec")
    return sha256(json.dumps([depends_on, versions], sort_keys=True).encode()).digest()


class CheckpointStore:
    """The finished parts of a job by name, each a file of `folder`, which is made when the first is written.

    A file holds a seal, the fingerprint of what the parts depend on, and arrays and metadata as safetensors. The seal
    is the SHA-256 of the part's name and of all that follows it.
    """

    def __init__(self, folder: Path, fingerprint: bytes) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, object]) -> None:
        """Keep a part, in the place of an older one. Raises ConfigError where it cannot be written."""
        # A view of another order would be stored in the order of its memory.
        laid_out = {key: np.require(array, requirements="C") for key, array in arrays.items()}
        contents = save(laid_out, {"json": json.dumps(metadata)})
        file = self._file(name)
        # A name of its own for every try would leave a file for every kill.
        unfinished = file.with_suffix(".new")
        try:
            self._folder.mkdir(0o700, exist_ok=True)
            unfinished.touch(0o600)
            with unfinished.open("wb") as opened:
                opened.write(self._seal(name, self._fingerprint, contents) + self._fingerprint)
                opened.write(contents)
            # Not forced to the disk: what a power cut leaves of it does not fit the seal.
            unfinished.replace(file)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise ConfigError(f"{self._folder}: cannot be written: {error.strerror or error}") from error

    def read(self, name: str) -> Checkpoint | None:
        """Give a part; None where there is none, or, with a warning, where it is damaged or depends on other things."""
        file = self._file(name)
        try:
            stored = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s: cannot be read: %s: it is made again", file, error.strerror)
            return None
        seal, fingerprint, contents = stored[:_DIGEST], stored[_DIGEST : 2 * _DIGEST], stored[2 * _DIGEST :]
        if seal != self._seal(name, fingerprint, contents):
            _log.warning("%s: is not what was written: it is made again", file)
            return None
        if fingerprint != self._fingerprint:
            _log.warning("%s: is of other input, options or versions: it is made again", file)
            return None
        header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])
        return Checkpoint(load(contents), json.loads(header["__metadata__"]["json"]))

    def remove(self, name: str) -> None:
        """Forget a part, if it is there."""
        self._file(name).unlink(missing_ok=True)

    def __len__(self) -> int:
        """Count the parts, whether they can be used or not."""
        return sum(1 for _ in self._folder.glob(f"*{_SUFFIX}"))

    def n_bytes(self) -> int:
        """Tell how much of the disk the parts take."""
        return sum(file.stat().st_size for file in self._folder.glob(f"*{_SUFFIX}"))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    @staticmethod
    def _seal(name: str, fingerprint: bytes, contents: bytes) -> bytes:
        summed = sha256(json.dumps(name).encode() + fingerprint)
        summed.update(contents)
        return summed.digest()
