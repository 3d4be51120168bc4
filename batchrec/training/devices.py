"""The device of a training, its threads and its memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from batchrec.config import Device
from batchrec.errors import ConfigError, DeviceError, one_line
from batchrec.system.machine import n_cores

# torch raises a class of its own for CUDA alone.
_IS_FULL = re.compile("out of memory|can't allocate memory|not enough memory")


def chosen_device(name: Device) -> torch.device:
    """Choose the device. Raises DeviceError if the requested one is missing."""
    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in is_available.items() if available))
    if not is_available[name]:
        raise DeviceError(f"--device {name}: torch {torch.__version__} finds none. Pass --device auto or cpu")
    return torch.device(name)


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Limit torch to this many threads until the block ends; if None, to the cores that this process may use."""
    former = torch.get_num_threads()
    torch.set_num_threads(threads or min(former, n_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(former)


@contextmanager
def full_memory_reported(device: torch.device) -> Iterator[None]:
    """Raise ConfigError, with the options that need less, if torch finds the memory of the device full."""
    try:
        yield
    except RuntimeError as error:
        if not _IS_FULL.search(str(error)):
            raise
        raise ConfigError(
            f"--device {device.type}: {one_line(error)}. Pass a smaller --batch-size, --negatives or --hidden-size"
        ) from error
