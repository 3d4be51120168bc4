"""A function on a GPU as CUDA graphs: one launch per call instead of hundreds, for which the GPU would wait."""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from batchrec.errors import one_line

_log = logging.getLogger(__name__)

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]

# Calls that the host may be ahead of the GPU, so that a look at the clock means something.
_MAX_AHEAD = 2
# Dropout draws other numbers in each call. A wrong replay differs by far more.
_TOLERANCE = 0.2


class CudaGraphs:
    """Captures what a function without arguments launches on the GPU; all graphs share their memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that launches the same again. Raises RuntimeError if that cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = function()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class GraphedFunction:
    """Calls a function of tensors with arrays.

    The first call with arrays of some shapes is an ordinary one. The second is captured, and all later ones replay it.
    So the function has to do the same for all arrays of these shapes and in repeated calls, never waits for the GPU,
    and changes tensors in place. A result holds until the next call.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device, capture: Capture) -> None:
        self._function, self._device, self._capture = function, device, capture
        self._called: set[object] = set()
        self._graphs: dict[object, tuple[list[Tensor | None], Callable[[], Tensor]]] = {}
        self._ends: deque[torch.cuda.Event] = deque()

    def __call__(self, *arrays: NDArray[Any] | None) -> Tensor:
        """Call the function with tensors of the arrays; None stays None."""
        shapes = tuple(None if array is None else array.shape for array in arrays)
        given = [None if array is None else self._on_host(array) for array in arrays]
        if shapes in self._graphs:
            inputs, replay = self._graphs[shapes]
            for tensor, values in zip(inputs, given, strict=True):
                if tensor is not None and values is not None:
                    tensor.copy_(values, non_blocking=True)
        else:
            inputs = [None if values is None else values.to(self._device, non_blocking=True) for values in given]
            replay = partial(self._function, *inputs)
            if shapes in self._called:
                replay = self._captured(replay)
                self._graphs[shapes] = inputs, replay
            self._called.add(shapes)
        result = replay()
        self._wait()
        return result

    def _on_host(self, array: NDArray[Any]) -> Tensor:
        # Only from pinned memory can a GPU copy while the host goes ahead.
        values = torch.from_numpy(array)
        return values.pin_memory() if self._device.type == "cuda" else values

    def _captured(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture a function; return the function itself if that fails, or if a replay has other results.

        Does not change the random numbers that follow, so that a run that resumes draws the same ones.
        """
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            expected = function().clone()
            try:
                replay = self._capture(function)
                if torch.allclose(replay(), expected, rtol=_TOLERANCE):
                    return replay
                reason = "a replay has other results"
            except RuntimeError as error:
                reason = one_line(error)
        _log.warning("CUDA graphs do not work here, so training is slower: %s", reason)
        return function

    def _wait(self) -> None:
        """Wait until the GPU is at most some calls behind."""
        if self._device.type != "cuda":
            return
        end = torch.cuda.Event()
        end.record()
        self._ends.append(end)
        if len(self._ends) > _MAX_AHEAD:
            self._ends.popleft().synchronize()
