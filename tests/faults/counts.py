"""What the fault suite has done, counted over all tests and shown at their end."""

import os
import threading
from collections import Counter

IS_LONG = os.environ.get("BATCHREC_FAULTS") == "long"

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def add(name: str, number: int = 1) -> None:
    with _lock:
        _counts[name] += number


def lines() -> list[str]:
    """A line a count, in the order of their names."""
    return [f"{name:40} {number:,}" for name, number in sorted(_counts.items())]
