"""One onnxruntime session that ranks: rows of tokens in, the best items of each out."""

import contextlib
import io
import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from batchrec.arrays import Floats, Ints
from batchrec.config import ScoringPrecision
from batchrec.errors import DeviceError, ModelError, one_line
from batchrec.model.batching import SeenPairs
from batchrec.model.precision import at_precision
from batchrec.system.machine import has_nvidia_device
from batchrec.tables.schemas import FIRST_ITEM

_log = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Ranking:
    """The best items of each row, best first: scores (rows, k) float32, -inf beyond the last item; items int32."""

    scores: Floats
    items: Ints

    @property
    def is_there(self) -> NDArray[np.bool_]:
        """Tell what is an item that may be recommended: a row of fewer than k has none at its end. (rows, k)."""
        is_there: NDArray[np.bool_] = self.scores != -np.inf
        return is_there


class Ranker:
    """The model's session on a device; `rank` may be called from several threads at once."""

    def __init__(
        self,
        encoder: bytes,
        device: Literal["auto", "cuda", "cpu"],
        precision: ScoringPrecision = "fp32",
        item_offsets: Floats | None = None,
    ) -> None:
        """Open the ONNX graph; int8 is for a CPU.

        item_offsets: (vocabulary,) float32, added to the scores of items, -inf for what nobody may get; none if None.
        Raises DeviceError where device is cuda and no GPU works, ModelError for a broken graph.
        """
        if precision == "int8":
            device = "cpu"
        graph = at_precision(encoder, precision)
        self._session, problem = open_session(graph, CPU if device == "cpu" else CUDA)
        self.device = "cuda" if self._session.get_providers()[0] == CUDA else "cpu"
        if self.device == "cpu" and device == "cuda":
            raise DeviceError(f"--device cuda: no GPU works: {problem}. Install batchrec[cuda], or pass --device cpu")
        if self.device == "cpu" and device == "auto":
            _announce_cpu(problem)
        sizes = {argument.name: argument.shape for argument in self._session.get_inputs()}
        (self._n_indexes,) = sizes["item_offsets"]
        if item_offsets is None:
            item_offsets = np.zeros(self._n_indexes, np.float32)
        # Once, for it is the same in every run.
        self._item_offsets = ort.OrtValue.ortvalue_from_numpy(item_offsets, self.device, 0)

    def rank(self, tokens: Ints, seen: SeenPairs, top_k: int) -> Ranking:
        """Rank the catalogue for each row, seen items left out.

        tokens: (rows, length) int32, PAD on the right; top_k: up to the number of items.
        The outputs alone come back from the device: never scores of the whole catalogue.
        Raises ModelError if what comes back is no ranking.
        """
        scores, items = self._run(tokens, seen, top_k, "scores", "items")
        return self._checked(scores, items, (len(tokens), top_k))

    def rank_and_encode(self, tokens: Ints, seen: SeenPairs, top_k: int) -> tuple[Ranking, Floats]:
        """Rank as `rank` does, and give the states (rows, hidden_size) float32 that the items' scores are made of."""
        scores, items, states = self._run(tokens, seen, top_k, "scores", "items", "states")
        return self._checked(scores, items, (len(tokens), top_k)), states

    def _checked(self, scores: Floats, items: Ints, shape: tuple[int, int]) -> Ranking:
        """Make a ranking of the graph's outputs. Raises ModelError if they are none: the graph may be anybody's."""
        ranking = Ranking(scores, items)
        if scores.shape != shape or items.shape != shape:
            raise ModelError(f"encoder.onnx: a ranking of {shape} came out as {scores.shape} and {items.shape}")
        check_scores(scores)
        is_there = ranking.is_there
        if ((items < np.where(is_there, FIRST_ITEM, 0)) | (items >= self._n_indexes)).any():
            raise ModelError("encoder.onnx: the graph ranks what is no item of the vocabulary. Train again")
        # The end of a row, where nothing is left, is no item's.
        ordered = np.sort(np.where(is_there, items, -1 - np.arange(shape[1], dtype=np.int32)), axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any() or (scores[:, 1:] > scores[:, :-1]).any():
            raise ModelError("encoder.onnx: the graph ranks an item twice, or not by the scores. Train again")
        return ranking

    def _run(self, tokens: Ints, seen: SeenPairs, top_k: int, *outputs: str) -> list[NDArray[Any]]:
        binding = self._session.io_binding()
        for name, values in (
            ("tokens", tokens),
            ("seen_rows", seen.rows),
            ("seen_items", seen.items),
            ("top_k", np.array(top_k)),
        ):
            binding.bind_cpu_input(name, values)
        binding.bind_ortvalue_input("item_offsets", self._item_offsets)
        for name in outputs:
            binding.bind_output(name)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's errors have no common base of their own
            if self.device == "cuda":
                raise DeviceError(f"onnxruntime cannot run the model on the GPU: {one_line(error)}") from error
            raise ModelError(f"encoder.onnx: onnxruntime cannot run the graph: {one_line(error)}") from error
        arrays: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
        return arrays


def check_scores(scores: Floats) -> None:
    """Raise ModelError if a score is neither a finite number nor the -inf of a place without an item."""
    if not (scores < np.inf).all():
        raise ModelError(
            "encoder.onnx: the model scores an item with what is not a finite number. Train again, or pass --precision "
            "fp32"
        )


@cache
def _announce_cpu(problem: str) -> None:
    """Log, once in a process, that no GPU is used: a warning if there is one."""
    if has_nvidia_device():
        _log.warning("no GPU works (%s): scoring on the CPU", problem)
    else:
        _log.info("there is no NVIDIA GPU: scoring on the CPU")


def providers_of(provider: str) -> list[str | tuple[str, dict[str, str]]]:
    """List what onnxruntime is to run a graph on, the CPU last, with the options of each.

    TF32 is off: it rounds the factors of fp32 products to 10 bits, and scores would differ from a CPU's by 1e-3.
    """
    return [(CUDA, {"use_tf32": "0"}), CPU] if provider == CUDA else [CPU]


def open_session(encoder: bytes, provider: str) -> tuple[ort.InferenceSession, str]:
    """Open an ONNX graph with CPU or CUDA, and on the CPU where CUDA does not start: the second value says why.

    Raises ModelError for a broken graph. The session's own providers tell what started: onnxruntime lists CUDA even
    where no GPU is.
    """
    options = ort.SessionOptions()
    # Several threads run the one session, each on a core of its own.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Lengths differ from run to run, so a plan of memory for one shape is of no use to the next.
    options.enable_mem_pattern = False
    # A graph whose weights are elsewhere finds nothing, least of all in the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    wants_cuda = provider == CUDA and CUDA in ort.get_available_providers()
    stdout = io.StringIO()
    # Where CUDA does not start, onnxruntime fills stderr, and prints the reason on stdout, where the report goes.
    ort.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(stdout):
            if wants_cuda:
                ort.preload_dlls()  # the CUDA libraries that PyPI's packages bring
            session = ort.InferenceSession(encoder, options, providers=providers_of(CUDA if wants_cuda else CPU))
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise ModelError(f"encoder.onnx: onnxruntime cannot open the graph: {one_line(error)}") from error
    finally:
        ort.set_default_logger_severity(2)
    if not wants_cuda:
        return session, "onnxruntime was built without CUDA"
    reasons = (line for line in stdout.getvalue().splitlines() if not line.startswith("***"))
    return session, next(reasons, "no NVIDIA device was found")
