"""Runs in pieces: if the memory of a device holds few rows, and if rows have more scores than kernels can count."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from batchrec.errors import DeviceError
from batchrec.model.batching import NO_PAIRS, SeenPairs
from batchrec.model.blend import NO_HABITS, ScoredPairs
from batchrec.model.ranker import Ranker
from batchrec.model.runs import GROUP, RunInputs, Runs, max_rows
from batchrec.scoring.scorer import batch_limits
from tests.training.test_blended_graph import SIZE, graph

# As onnxruntime 1.31 says it: its arena without a limit and with one, and CUDA.
BY_ARENA = (
    "Error in execution: Non-zero status code returned while running Gemm node. Name:'node_linear_10' Status Message: "
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*) "
)
FULL = f"{BY_ARENA}Failed to allocate memory for requested buffer of size 4294967296\n"
BEYOND_LIMIT = f"{BY_ARENA}Available memory of 0 is smaller than requested bytes of 6400000\n"
BY_CUDA = "Error in execution: CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, size);"
N_ROWS = 11


class SmallSession:
    """A session that refuses runs of more than `n_rows` rows."""

    def __init__(self, session: Any, n_rows: int, text: str) -> None:
        self._session, self._n_rows, self._text = session, n_rows, text
        self.asked: list[int] = []

    def io_binding(self) -> Any:
        binding = self._session.io_binding()
        bind = binding.bind_cpu_input

        def bind_cpu_input(name: str, values: NDArray[Any]) -> None:
            if name == "tokens":
                self.asked.append(len(values))
            bind(name, values)

        binding.bind_cpu_input = bind_cpu_input
        return binding

    def run_with_iobinding(self, binding: Any) -> None:
        if self.asked[-1] > self._n_rows:
            raise RuntimeError(self._text)
        self._session.run_with_iobinding(binding)


def small(n_rows: int, text: str = FULL) -> tuple[Ranker, SmallSession]:
    ranker = Ranker(graph("causal", 0.6), "cpu", keeps_states=True)
    session = SmallSession(ranker._session, n_rows, text)
    ranker._session = session
    ranker.device = "cuda"
    return ranker, session


def inputs() -> tuple[NDArray[np.int32], SeenPairs, ScoredPairs, SeenPairs]:
    """Tokens, seen items, habits and asked pairs of 11 rows, the pairs in no order."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(2, SIZE, (N_ROWS, 4)).astype(np.int32)
    seen, habits, asked = (
        np.divmod(generator.choice(N_ROWS * (SIZE - 2), n, replace=False), SIZE - 2) for n in (30, 25, 20)
    )
    scores = generator.normal(size=25).astype(np.float32)
    return (
        tokens,
        SeenPairs(seen[0], seen[1] + 2),
        ScoredPairs(habits[0], habits[1] + 2, scores),
        SeenPairs(asked[0], asked[1] + 2),
    )


@pytest.mark.parametrize("n_rows", [1, 2, 5, 11])
@pytest.mark.parametrize("text", [FULL, BEYOND_LIMIT, BY_CUDA], ids=["full", "limit", "cuda"])
def test_a_device_with_little_memory_gives_the_results_of_whole_runs(n_rows: int, text: str) -> None:
    tokens, seen, habits, asked = inputs()
    whole, _ = small(N_ROWS)
    ranker, session = small(n_rows, text)
    expected, expected_scores = whole.rank_and_score(tokens, seen, 6, asked, habits)
    ranking, scores = ranker.rank_and_score(tokens, seen, 6, asked, habits)
    assert ranking.items.tolist() == expected.items.tolist()
    assert ranking.states is not None
    assert expected.states is not None
    for own, others in (
        (ranking.scores, expected.scores),
        (ranking.states, expected.states),
        (scores, expected_scores),
    ):
        assert own.shape == others.shape
        assert own.dtype == others.dtype
        assert own == pytest.approx(others, abs=1e-5)
    assert ranker.encode(tokens) == pytest.approx(whole.encode(tokens), abs=1e-5)
    assert ranker.score(tokens, asked, habits)[0] == pytest.approx(expected_scores, abs=1e-5)
    assert (N_ROWS in session.asked[1:]) == (n_rows == N_ROWS)


def test_the_smaller_size_is_kept_for_later_runs() -> None:
    tokens, *_ = inputs()
    ranker, session = small(3)
    ranker.encode(tokens)
    assert session.asked == [11, 5, 2, 2, 2, 2, 2, 1]
    session.asked.clear()
    ranker.encode(tokens[:5])
    assert session.asked == [2, 2, 1]


def test_a_single_row_that_does_not_fit_is_a_device_error() -> None:
    ranker, session = small(0)
    with pytest.raises(DeviceError, match=r"cannot run the model on the GPU.*Failed to allocate memory"):
        ranker.encode(inputs()[0])
    assert session.asked == [11, 5, 2, 1]


def test_other_errors_are_not_tried_again() -> None:
    ranker, session = small(0, "CUDA failure 700: an illegal memory access was encountered")
    with pytest.raises(DeviceError, match="illegal memory access"):
        ranker.encode(inputs()[0])
    assert session.asked == [11]


@pytest.mark.parametrize("size", [3, 62_425, 500_001, 3_000_002, 2**30, 2**31])
def test_scores_of_a_run_are_counted_in_32_bits(size: int) -> None:
    padded = -(-size // GROUP) * GROUP
    rows = max_rows(size)
    assert rows == 1 or rows * padded < 2**31
    assert (rows + 2) * (padded + GROUP) >= 2**31 - 1
    for device in ("cpu", "cuda"):
        assert batch_limits(device, size)[1] <= rows


def test_more_rows_than_kernels_can_count_are_run_in_pieces() -> None:
    pieces: list[list[int]] = []

    def run(inputs: RunInputs, outputs: Sequence[str]) -> list[NDArray[Any]]:
        pieces.append(inputs.tokens[:, 0].tolist())
        return [inputs.tokens for _ in outputs]

    tokens = np.arange(5, dtype=np.int32)[:, None]
    found = Runs(run, 2**30 - GROUP)(RunInputs(tokens, NO_PAIRS, 1, NO_HABITS, NO_PAIRS), ["states"])
    assert pieces == [[0], [1], [2], [3], [4]]
    assert found[0].tolist() == tokens.tolist()


@pytest.mark.parametrize(
    ("device", "size", "n_users"),
    [
        ("cpu", 62_425, 67),
        ("cpu", 3_000_002, 16),
        ("cpu", 10_000_002, 6),
        ("cuda", 62_425, 2150),
        ("cuda", 1_000_002, 512),
        ("cuda", 3_000_002, 357),
        ("cuda", 2**31, 1),
    ],
)
def test_a_run_has_more_scores_if_the_catalogue_is_wide(device: str, size: int, n_users: int) -> None:
    assert batch_limits(device, size)[1] == n_users
