"""Items that a thread computes, so that a signal can end the wait for a slow one."""

from collections.abc import Generator
from contextlib import closing
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

from batchrec.system.signals import interrupted_by_signals

_Item = TypeVar("_Item")
_AHEAD = 2
_POLL_S = 0.1
# How long an abandoned thread may take to close what it has opened.
_CLOSE_S = 5


class _End(Exception):  # noqa: N818 - not an error
    """All items are computed."""


def in_background(items: Generator[_Item]) -> Generator[_Item]:
    """Yield the items of a generator that a thread runs, two ahead at most; raises its error.

    The library of a store waits for its server in C code, in which Python does not notice signals.
    """
    queue: Queue[_Item | BaseException] = Queue(_AHEAD)
    is_stopped = Event()

    def compute() -> None:
        end: BaseException = _End()
        try:
            with closing(items):
                for item in items:
                    _put(queue, item, is_stopped)
                    if is_stopped.is_set():
                        return
        except BaseException as error:
            end = error
        _put(queue, end, is_stopped)

    # A daemon, because a thread that waits for a lost server must not keep the process alive.
    thread = Thread(target=compute, daemon=True)
    thread.start()
    try:
        with interrupted_by_signals(is_stopped.set):
            while not is_stopped.is_set():
                try:
                    item = queue.get(timeout=_POLL_S)
                except Empty:
                    continue
                if isinstance(item, _End):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
    finally:
        is_stopped.set()
        thread.join(_CLOSE_S)


def _put(queue: Queue[_Item | BaseException], item: _Item | BaseException, is_stopped: Event) -> None:
    """Put an item into a queue if there is room before nobody waits for it any more."""
    while not is_stopped.is_set():
        try:
            queue.put(item, timeout=_POLL_S)
        except Full:
            continue
        return
