"""Time and memory of a function, in a process of its own."""

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

# What a kernel counts memory in: bytes on macOS, KiB elsewhere.
_MIB = 1 << 20 if sys.platform == "darwin" else 1 << 10


@dataclass(frozen=True)
class Measured:
    """The seconds that a function took, the most memory that its process has held, and what it gave back."""

    seconds: float
    peak_mib: float
    value: Any


def measure(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Call a function in a new process. The seconds are those of the call, without the start of the process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_call, function, arguments).result()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Measured:
    started = time.perf_counter()
    value = function(*arguments)
    seconds = time.perf_counter() - started
    return Measured(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB, value)
