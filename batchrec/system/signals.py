"""SIGTERM and SIGINT: long queries are interrupted, and temporaries cleaned up on the way out, undisturbed."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_INTERRUPT_EVERY_S = 0.1
# Of the process, as its signals are.
_to_interrupt: list[Callable[[], None]] = []
_resumable: list[None] = []
_raised: list["Terminated"] = []


class Terminated(SystemExit):
    """A signal has come: SIGTERM, exit code 143, or SIGINT, 130. The message says whether the command can go on.

    report: what is known of the night that it ended, if it ended one.
    """

    report: object = None

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        goes_on = ": the same command goes on where it stopped" if _resumable else ""
        self.message = f"{'interrupted' if number == signal.SIGINT else 'terminated'}{goes_on}"


@contextmanager
def interrupted_by_signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` where a signal ends the block: for work that no exception in the main thread would reach.

    It is called again and again from a thread, for the work may begin after the signal: DuckDB swallows what a handler
    raises while it imports. Raises Terminated at the end of the block at the latest.
    """
    _to_interrupt.append(interrupt)
    try:
        yield
        if _raised:
            raise _raised[0]
    finally:
        _to_interrupt.remove(interrupt)


@contextmanager
def can_resume() -> Iterator[None]:
    """Let the block's end by SIGTERM be announced as one after which the same command goes on where it stopped."""
    _resumable.append(None)
    try:
        yield
    finally:
        _resumable.pop()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Terminated for SIGTERM and SIGINT in the block; further ones do nothing."""
    come, over = threading.Event(), threading.Event()

    def keep_interrupting() -> None:
        come.wait()
        while not over.is_set():
            for interrupt in _to_interrupt.copy():
                with suppress(Exception):  # a connection that is closed by now
                    interrupt()
            over.wait(_INTERRUPT_EVERY_S)

    def stop(number: int, _: FrameType | None) -> None:
        # A second exception would break off the cleaning up after the first.
        if _raised:
            return
        _raised.append(Terminated(number))
        come.set()
        raise _raised[0]

    # Before any signal: its handler may break into the start of another thread.
    interrupter = threading.Thread(target=keep_interrupting, daemon=True)
    interrupter.start()
    numbers = (signal.SIGTERM, signal.SIGINT)
    # Only the main thread may set handlers, and only it gets signals.
    is_main = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, stop) for number in numbers} if is_main else {}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        over.set()
        come.set()
        interrupter.join()
        _raised.clear()


@contextmanager
def signals_first() -> Iterator[None]:
    """Raise Terminated where a signal has come, in place of the error by which what it interrupted has ended.

    DuckDB's "Query interrupted" is one; a job may take that for input that cannot be read.
    """
    try:
        yield
    except Exception as error:
        if _raised:
            raise _raised[0] from error
        raise


def ignore_signals() -> None:
    """Let no signal change the exit code of a program that is about to end."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
