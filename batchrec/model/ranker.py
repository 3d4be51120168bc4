"""The onnxruntime session of a model: ranks the best items for rows of tokens."""

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from batchrec.arrays import Floats, Ints
from batchrec.config import ScoringPrecision
from batchrec.errors import DeviceError, ModelError, one_line
from batchrec.model.batching import NO_PAIRS, SeenPairs
from batchrec.model.blend import NO_HABITS, ScoredPairs
from batchrec.model.graph import Graph
from batchrec.model.graph_changes import with_biases_in_product, without_outputs
from batchrec.model.precision import at_precision
from batchrec.model.runs import RunInputs, Runs
from batchrec.system.machine import has_nvidia_device
from batchrec.tables.schemas import FIRST_ITEM

_log = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Ranking:
    """The best items of each row, best first: scores (rows, k) float32, -inf beyond the last item; items int32.

    states: (rows, hidden_size) float32, of the encoder, None unless the Ranker keeps them.
    """

    scores: Floats
    items: Ints
    states: Floats | None = field(default=None, kw_only=True)

    @property
    def is_item(self) -> NDArray[np.bool_]:
        """Return which places hold an item, (rows, k): a row with fewer than k items has none at its end."""
        is_item: NDArray[np.bool_] = self.scores != -np.inf
        return is_item

    def of_ordered_ties(self) -> "Ranking":
        """Return the ranking with items of the same score in the order of their indexes."""
        is_tied = ((self.scores[:, 1:] == self.scores[:, :-1]) & self.is_item[:, 1:]).any(axis=1)
        rows = np.flatnonzero(is_tied)
        if len(rows) == 0:
            return self
        order = np.lexsort((self.items[rows], -self.scores[rows]))
        items = self.items.copy()
        items[rows] = np.take_along_axis(items[rows], order, axis=1)
        return Ranking(self.scores, items)


class Ranker:
    """The model's session on a device. Several threads may call `rank` at once."""

    def __init__(  # noqa: PLR0913 - the options of a session
        self,
        graph: Graph,
        device: Literal["auto", "cuda", "cpu"],
        precision: ScoringPrecision = "fp32",
        item_offsets: Floats | None = None,
        *,
        keeps_states: bool = False,
        scores_pairs: bool = True,
    ) -> None:
        """Open a graph; int8 always runs on the CPU.

        item_offsets: (vocabulary,) float32, added to the scores; -inf for items that nobody may get. None adds nothing.
        keeps_states: whether rankings have the states of the encoder. scores_pairs: whether `score` or `rank_and_score`
        is called: they need a copy of all scores.
        Raises DeviceError if device is cuda and no GPU works, ModelError if the graph is broken.
        """
        if precision == "int8":
            device = "cpu"
        if not scores_pairs:
            graph = without_outputs(graph, "asked_scores")
        if device != "cpu" and has_nvidia_device():
            graph = with_biases_in_product(graph, item_offsets)
        self._states = ("states",) if keeps_states else ()
        self._session, problem = open_session(at_precision(graph, precision), CPU if device == "cpu" else CUDA)
        self.device = "cuda" if self._session.get_providers()[0] == CUDA else "cpu"
        if self.device == "cpu" and device == "cuda":
            raise DeviceError(f"--device cuda: no GPU works: {problem}. Install batchrec[cuda], or pass --device cpu")
        if self.device == "cpu" and device == "auto":
            _announce_cpu(problem)
        # Of many items with the same rounded score, any may be among the best.
        self._is_exact = precision != "fp16"
        sizes = {argument.name: argument.shape for argument in self._session.get_inputs()}
        (self._n_indexes,) = sizes["item_offsets"]
        self._runs = Runs(self._run_once, self._n_indexes)
        if item_offsets is None:
            item_offsets = np.zeros(self._n_indexes, np.float32)
        # Copied to the device once, because every run uses the same offsets.
        self._item_offsets = ort.OrtValue.ortvalue_from_numpy(item_offsets, self.device, 0)

    def rank(self, tokens: Ints, seen: SeenPairs, top_k: int, habits: ScoredPairs = NO_HABITS) -> Ranking:
        """Rank the catalogue for each row, seen items left out.

        tokens: (rows, length) int32, PAD on the right; top_k: up to the number of items; habits: blend.habits of the
        rows. Only the outputs are copied back from the device, never the scores of the whole catalogue. Items of the
        same score are in the order of their indexes, on every device.
        Raises ModelError if the outputs are not a ranking.
        """
        return self._best(RunInputs(tokens, seen, top_k, habits, NO_PAIRS))[0]

    def rank_and_score(
        self, tokens: Ints, seen: SeenPairs, top_k: int, asked: SeenPairs, habits: ScoredPairs = NO_HABITS
    ) -> tuple[Ranking, Floats]:
        """Rank as `rank` does, and also return the scores of some pairs of a row and an item, seen or not.

        Returns the ranking and the scores (pairs,) float32. Raises ModelError also for scores that are not finite.
        """
        ranking, (asked_scores,) = self._best(RunInputs(tokens, seen, top_k, habits, asked), "asked_scores")
        check_scores(asked_scores)
        return ranking, asked_scores

    def score(self, tokens: Ints, asked: SeenPairs, habits: ScoredPairs = NO_HABITS) -> tuple[Floats, Floats | None]:
        """Return the scores of some pairs of a row and an item, as `rank_and_score` does, and the states if kept."""
        # Only these scores are needed: of the catalogue one item is ranked.
        scores, *states = self._run(RunInputs(tokens, NO_PAIRS, 1, habits, asked), "asked_scores", *self._states)
        check_scores(scores)
        return scores, next(iter(states), None)

    def encode(self, tokens: Ints) -> Floats:
        """Return the states of the encoder at the last places: (rows, hidden_size) float32."""
        # Only the states are needed: of the catalogue one item is ranked.
        (states,) = self._run(RunInputs(tokens, NO_PAIRS, 1, NO_HABITS, NO_PAIRS), "states")
        return states

    def _best(self, inputs: RunInputs, *outputs: str) -> tuple[Ranking, list[NDArray[Any]]]:
        """Return the ranking, with states if they are kept, and other outputs of the graph.

        The CPU orders items of the same score by their indexes. CUDA's kernels do not, and if the last item of a list
        has the same score as others, they choose any of these. So one more item is ranked, to see such ties, and the
        rows that have them are ranked deeper.
        """
        top_k, n_rows, n_items = inputs.top_k, len(inputs.tokens), self._n_indexes - FIRST_ITEM
        depth = top_k if self.device == "cpu" else min(top_k + 1, n_items)
        names = "scores", "items", *outputs, *self._states
        scores, items, *others = self._run(replace(inputs, top_k=depth), *names)
        states = others.pop() if self._states else None
        ranking = self._checked(scores, items, (n_rows, depth))
        if self.device == "cpu":
            return replace(ranking, states=states), others
        ranking = ranking.of_ordered_ties()
        best = Ranking(ranking.scores[:, :top_k].copy(), ranking.items[:, :top_k].copy(), states=states)
        rows = np.arange(n_rows)
        while self._is_exact and depth < n_items:
            last = ranking.scores[:, top_k - 1]
            rows = rows[(ranking.scores[:, -1] == last) & (last != -np.inf)]
            if len(rows) == 0:
                break
            depth = min(2 * depth, n_items)
            deeper = replace(inputs, top_k=depth, asked=NO_PAIRS).of_rows(rows)
            scores, items = self._run(deeper, "scores", "items")
            ranking = self._checked(scores, items, (len(rows), depth)).of_ordered_ties()
            best.scores[rows], best.items[rows] = ranking.scores[:, :top_k], ranking.items[:, :top_k]
        return best, others

    def _checked(self, scores: Floats, items: Ints, shape: tuple[int, int]) -> Ranking:
        """Check the graph's outputs, since the graph may be anybody's. Raises ModelError if they are not a ranking."""
        ranking = Ranking(scores, items)
        if scores.shape != shape or items.shape != shape:
            raise ModelError(
                f"encoder.onnx: the ranking has the shapes {scores.shape} and {items.shape}; expected {shape}"
            )
        check_scores(scores)
        is_item = ranking.is_item
        if ((items < np.where(is_item, FIRST_ITEM, 0)) | (items >= self._n_indexes)).any():
            raise ModelError("encoder.onnx: the graph ranks an index that is not in the vocabulary. Train again")
        # Empty places at the end of a row get distinct values that are no items.
        ordered = np.sort(np.where(is_item, items, -1 - np.arange(shape[1], dtype=np.int32)), axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any() or (scores[:, 1:] > scores[:, :-1]).any():
            raise ModelError("encoder.onnx: the graph ranks an item twice, or not by score. Train again")
        return ranking

    def _run(self, inputs: RunInputs, *outputs: str) -> list[NDArray[Any]]:
        try:
            return self._runs(inputs, outputs)
        except Exception as error:  # onnxruntime's errors share no base class of their own
            if self.device == "cuda":
                raise DeviceError(f"onnxruntime cannot run the model on the GPU: {one_line(error)}") from error
            raise ModelError(f"encoder.onnx: onnxruntime cannot run the graph: {one_line(error)}") from error

    def _run_once(self, inputs: RunInputs, outputs: Sequence[str]) -> list[NDArray[Any]]:
        binding = self._session.io_binding()
        for name, values in (
            ("tokens", inputs.tokens),
            ("seen_rows", inputs.seen.rows),
            ("seen_items", inputs.seen.items),
            ("habit_rows", inputs.habits.rows),
            ("habit_items", inputs.habits.items),
            ("habit_scores", inputs.habits.scores),
            ("asked_rows", inputs.asked.rows),
            ("asked_items", inputs.asked.items),
            ("top_k", np.array(inputs.top_k)),
        ):
            binding.bind_cpu_input(name, values)
        binding.bind_ortvalue_input("item_offsets", self._item_offsets)
        for name in outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        arrays: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
        return arrays


def check_scores(scores: Floats) -> None:
    """Raise ModelError if a score is neither finite nor the -inf of a place without an item."""
    if not (scores < np.inf).all():
        raise ModelError(
            "encoder.onnx: the model gives an item a score that is not a finite number. Train again, or pass "
            "--precision fp32"
        )


@cache
def _announce_cpu(problem: str) -> None:
    """Log once per process that the CPU is used: as a warning if the machine has a GPU."""
    if has_nvidia_device():
        _log.warning("no GPU works (%s): scoring on the CPU", problem)
    else:
        _log.info("there is no NVIDIA GPU: scoring on the CPU")


def providers_of(provider: str) -> list[str | tuple[str, dict[str, str]]]:
    """List the execution providers for onnxruntime, the CPU last, with their options.

    TF32 is off: it rounds the factors of fp32 products to 10 bits, so scores would differ from a CPU's by 1e-3.
    """
    return [(CUDA, {"use_tf32": "0"}), CPU] if provider == CUDA else [CPU]


def open_session(graph: Graph, provider: str) -> tuple[ort.InferenceSession, str]:
    """Open an ONNX graph with CUDA or the CPU; if CUDA does not start, on the CPU. The second value says why.

    If CUDA is not asked for, the session computes with the graph's tensors where they are, without a copy. Raises
    ModelError if the graph is broken. Only the session's own providers show what started: onnxruntime lists CUDA as
    available even without a GPU.
    """
    options = ort.SessionOptions()
    # Several threads share the session, each on its own core.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Lengths differ from run to run, so a memory plan for one shape does not fit the next.
    options.enable_mem_pattern = False
    # External data are these tensors. Of files it must find none, especially not in the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    values = {name: ort.OrtValue.ortvalue_from_numpy(tensor) for name, tensor in graph.tensors.items()}
    options.add_external_initializers(list(values), list(values.values()))
    wants_cuda = provider == CUDA and CUDA in ort.get_available_providers()
    for name, value in () if wants_cuda else values.items():
        # Otherwise the session would copy them; CUDA needs a copy.
        options.add_initializer(name, value)
    stdout = io.StringIO()
    # If CUDA does not start, onnxruntime floods stderr and prints the reason to stdout, where the report belongs.
    ort.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(stdout):
            if wants_cuda:
                ort.preload_dlls()  # the CUDA libraries from PyPI's packages
            session = ort.InferenceSession(graph.proto, options, providers=providers_of(CUDA if wants_cuda else CPU))
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ModelError(f"encoder.onnx: onnxruntime cannot open the graph: {one_line(error)}") from error
    finally:
        ort.set_default_logger_severity(2)
    # The session refers to the values but does not keep them.
    session.batchrec_values = values
    if not wants_cuda:
        return session, "onnxruntime was built without CUDA"
    reasons = (line for line in stdout.getvalue().splitlines() if not line.startswith("***"))
    return session, next(reasons, "no NVIDIA device was found")
