"""Time and memory of a function, in a process of its own."""

import re
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """The seconds that a function took, the most memory that its process has held, and what it gave back."""

    seconds: float
    peak_mib: float
    value: Any


def run_isolated(function: Callable[..., Any], *arguments: Any) -> Measurement:
    """Call a function in a new process. The seconds are those of the call, without the start of the process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_call, function, arguments).result()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Measurement:
    started = time.perf_counter()
    value = function(*arguments)
    return Measurement(time.perf_counter() - started, _peak_mib(), value)


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage also counts what the parent held when it started this process.
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
