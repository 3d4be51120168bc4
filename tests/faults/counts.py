"""Counts of the faults that the tests have caused, printed when the run ends."""

import os
import threading
from collections import Counter
from collections.abc import Iterable

import pytest

IS_LONG = os.environ.get("BATCHREC_FAULTS") == "long"

_counts: Counter[str] = Counter()
_lock = threading.Lock()


# Left out of the short form.
long_form = pytest.mark.skipif(not IS_LONG, reason="a part of the long form: make faults")


def some(everything: Iterable[str], *in_short_form: str) -> list[str]:
    """Return the parameters of a test: all of them in the long form, a selection in the short form."""
    return list(everything) if IS_LONG else list(in_short_form)


def add(name: str, number: int = 1) -> None:
    with _lock:
        _counts[name] += number


def by_name() -> dict[str, int]:
    return dict(_counts)


def lines() -> list[str]:
    """Return one line per count, sorted by name."""
    return [f"{name:40} {number:,}" for name, number in sorted(_counts.items())]
