"""Items that a thread computes: as they are, in order, with its error, and without leaving anything open."""

from collections.abc import Generator
from contextlib import closing
from threading import Event, current_thread

import pytest

from batchrec.sources.background import in_background


def numbers(n: int, is_closed: Event, error: Exception | None = None) -> Generator[int]:
    try:
        yield from range(n)
        if error is not None:
            raise error
    finally:
        is_closed.set()


def test_items_come_in_order_from_another_thread() -> None:
    is_closed = Event()
    assert list(in_background(numbers(100, is_closed))) == list(range(100))
    assert is_closed.is_set()

    def names() -> Generator[str]:
        yield current_thread().name

    assert list(in_background(names())) != [current_thread().name]


def test_the_error_of_the_thread_is_raised_after_its_items() -> None:
    items = in_background(numbers(1, Event(), OSError("lost")))
    assert next(items) == 0
    with pytest.raises(OSError, match="lost"):
        next(items)


def test_a_generator_that_is_abandoned_is_closed() -> None:
    is_closed = Event()
    with closing(in_background(numbers(1_000_000, is_closed))) as items:
        assert next(items) == 0
    assert is_closed.wait(60)
