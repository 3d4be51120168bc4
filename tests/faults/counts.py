"""What the fault suite has done, counted over all tests and shown at their end."""

import os
import threading
from collections import Counter
from collections.abc import Iterable

import pytest

IS_LONG = os.environ.get("BATCHREC_FAULTS") == "long"

_counts: Counter[str] = Counter()
_lock = threading.Lock()


# What the short form leaves out.
long_form = pytest.mark.skipif(not IS_LONG, reason="a part of the long form: make faults")


def some(everything: Iterable[str], *in_short_form: str) -> list[str]:
    """Give the parameters of a test in the form that runs."""
    return list(everything) if IS_LONG else list(in_short_form)


def add(name: str, number: int = 1) -> None:
    with _lock:
        _counts[name] += number


def lines() -> list[str]:
    """A line a count, in the order of their names."""
    return [f"{name:40} {number:,}" for name, number in sorted(_counts.items())]
