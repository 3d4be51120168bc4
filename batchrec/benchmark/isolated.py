"""Time and peak memory of a function in its own process."""

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
    """The seconds of a call, the peak memory of its process, and the returned value."""

    seconds: float
    peak_mib: float
    value: Any


def run_isolated(function: Callable[..., Any], *arguments: Any) -> Measurement:
    """Call a function in a new process. The seconds are those of the call and exclude the start of the process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_call, function, arguments).result()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Measurement:
    started = time.perf_counter()
    value = function(*arguments)
    return Measurement(time.perf_counter() - started, _peak_mib(), value)


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would also count the parent's memory at the time this process started.
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
