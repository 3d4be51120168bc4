"""The time limit of a training (--max-minutes): all processes end an epoch after the same step."""

import time
from collections.abc import Callable

from batchrec.training.distributed import ProcessGroup

# Seconds between two looks at the clock, since the processes have to agree on each.
_LOOK_EVERY_S = 1.0


class TimeIsUp(Exception):  # noqa: N818 - not an error: training ends as requested
    """The training has used up its time."""


class TimeLimit:
    """The seconds left to an epoch, counted from now; `has_ended` is true once `ends_after` has returned true."""

    def __init__(self, seconds: float, group: ProcessGroup, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._group = group
        self._clock = clock
        self._started = clock()
        self._look_after = 1
        self.has_ended = False

    @property
    def elapsed(self) -> float:
        """Seconds since the epoch began, by this process's clock."""
        return self._clock() - self._started

    def check(self) -> None:
        """Raise TimeIsUp if the time is up, by this process's clock."""
        if self.elapsed >= self._seconds:
            raise TimeIsUp

    def ends_after(self, n_steps: int) -> bool:
        """Return whether the epoch ends after `n_steps` steps; every process asks after every step and gets the same.

        The first process looks at its clock and tells the others after which step to look again.
        """
        if n_steps < self._look_after:
            return False
        next_look = self._next_look(n_steps) if self._group.is_first else None
        self._look_after = self._group.broadcast(next_look)
        self.has_ended = self._look_after <= n_steps
        return self.has_ended

    def _next_look(self, n_steps: int) -> int:
        elapsed = self.elapsed
        left = self._seconds - elapsed
        if left <= 0:
            return n_steps
        if elapsed <= 0:
            return n_steps + 1
        return n_steps + max(1, int(min(left, _LOOK_EVERY_S) * n_steps / elapsed))
