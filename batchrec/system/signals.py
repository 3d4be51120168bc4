"""SIGTERM and SIGINT: interrupt long queries, then let the command remove its temporary files undisturbed."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_INTERRUPT_EVERY_S = 0.1
# One for the process, as its signals are.
_to_interrupt: list[Callable[[], None]] = []
_resumable: list[None] = []
_raised: list["Terminated"] = []
# Whether signals wait, innermost block last.
_waiting: list[bool] = []


class Terminated(SystemExit):
    """A signal has arrived: SIGTERM (exit code 143) or SIGINT (130). The message says whether the command can resume.

    report: the report of the night so far, if a night was running.
    """

    report: object = None

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        resumes = ". Run the same command again to resume" if _resumable else ""
        self.message = f"{'interrupted' if number == signal.SIGINT else 'terminated'}{resumes}"


@contextmanager
def interrupted_by_signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` if a signal arrives in the block: for work that an exception in the main thread does not stop.

    A thread calls it repeatedly, since the work may start after the signal: DuckDB swallows what a handler raises while
    it imports. Raises Terminated at the end of the block at the latest.
    """
    _to_interrupt.append(interrupt)
    try:
        yield
        if _raised:
            raise _raised[0]
    finally:
        _to_interrupt.remove(interrupt)


@contextmanager
def signals_waiting(wait: bool) -> Iterator[None]:
    """With wait, raise nothing for a signal in the block, whose program would catch it; without it, raise again.

    Use it within `interrupted_by_signals`, which ends that program, and raises Terminated after it.
    """
    _waiting.append(wait)
    try:
        if _raised and not wait:
            raise _raised[0]
        yield
    finally:
        _waiting.pop()


@contextmanager
def can_resume() -> Iterator[None]:
    """If a signal ends the block, let its message say that the same command resumes."""
    _resumable.append(None)
    try:
        yield
    finally:
        _resumable.pop()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Terminated for the first SIGTERM or SIGINT in the block; later ones do nothing."""
    numbers, is_over = (signal.SIGTERM, signal.SIGINT), threading.Event()
    # Python writes the number of each signal at once, also while the main thread waits in the code of a library, such
    # as a driver for its server, and no handler can run.
    arrivals, writing = socket.socketpair()
    writing.setblocking(False)

    def keep_interrupting() -> None:
        while not is_over.is_set() and set(arrivals.recv(64)).isdisjoint(numbers):
            pass
        while not is_over.is_set():
            for interrupt in _to_interrupt.copy():
                with suppress(Exception):  # the connection may be closed by now
                    interrupt()
            is_over.wait(_INTERRUPT_EVERY_S)

    def stop(number: int, _: FrameType | None) -> None:
        # A second exception would break off the clean-up after the first.
        if _raised:
            return
        _raised.append(Terminated(number))
        # A library may have put its own place in place of ours.
        with suppress(OSError):
            writing.send(bytes([number]))
        if not any(_waiting[-1:]):
            raise _raised[0]

    # Started before any signal: a handler may interrupt the start of a thread.
    interrupter = threading.Thread(target=keep_interrupting, daemon=True)
    interrupter.start()
    # Only the main thread may set handlers, and only it receives signals.
    is_main = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, stop) for number in numbers} if is_main else {}
    former_writing = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False) if is_main else -1
    try:
        yield
    finally:
        if is_main:
            signal.set_wakeup_fd(former_writing)
        for number, handler in former.items():
            signal.signal(number, handler)
        is_over.set()
        # Ends the wait for a signal.
        writing.close()
        interrupter.join()
        arrivals.close()
        _raised.clear()


@contextmanager
def signals_first() -> Iterator[None]:
    """If a signal has arrived, raise Terminated in place of the error of the work that it interrupted.

    DuckDB's "Query interrupted" is such an error; a job may take it for unreadable input.
    """
    try:
        yield
    except Exception as error:
        if _raised:
            raise _raised[0] from error
        raise


def ignore_signals() -> None:
    """Ignore signals from now on: they must not change the exit code of a program that is about to end."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
