import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.transformers.float16 import convert_np_to_float16

from batchrec.config import Objective, ScoringConfig, ScoringPrecision
from batchrec.model.batching import NO_PAIRS, Histories, scoring_tokens, seen_pairs
from batchrec.model.directory import load_model, read_graph
from batchrec.model.graph import Graph
from batchrec.model.precision import _halves, at_precision
from batchrec.model.ranker import Ranker, Ranking
from batchrec.scoring.score import score
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder
from tests.support.models import (
    SUCCESSIONS,
    indexed,
    learned_model,
    run_cli,
    small_encoder,
    succession_sequences,
    trained_model,
    training_sequences,
)
from tests.support.params import masked_is_slow, slow_except
from tests.support.shared import exported

FEWER_BITS: list[ScoringPrecision] = ["fp16", "int8"]
fewer_bits = pytest.mark.parametrize("precision", slow_except(FEWER_BITS, "int8"))
# As many as in tests/rules/test_segments.py, which needs a graph of this shape too.
SIZE = 402
# Where fp16 ends: at 0, at half of its least number, at that, and at infinity.
EDGES = [sign * edge for sign in (1, -1) for edge in (0.0, 2.0**-25, 2.0**-24, 65504.0, 65520.0)]


def random_histories() -> Histories:
    """Draw 40 histories of up to 8 items."""
    chance = np.random.default_rng(5)
    return indexed(*(chance.integers(FIRST_ITEM, SIZE, chance.integers(1, 9)).tolist() for _ in range(40)))


@fewer_bits
@masked_is_slow
def test_scores_are_rounded_and_nothing_else(precision: ScoringPrecision, objective: Objective) -> None:
    encoder = small_encoder(SIZE, objective=objective)
    graph = read_graph(exported(encoder))
    histories, users = random_histories(), np.arange(40)

    def ranking(precision: ScoringPrecision) -> Ranking:
        ranker = Ranker(graph, "cpu", precision)
        return ranker.rank(
            scoring_tokens(histories, users, encoder.shape), seen_pairs(histories, users), SIZE - FIRST_ITEM
        )

    exact, rounded = ranking("fp32"), ranking(precision)
    by_item = [dict(zip(*row, strict=True)) for row in zip(exact.items.tolist(), exact.scores.tolist(), strict=True)]
    expected = np.array(
        [[scores[item] for item in row] for scores, row in zip(by_item, rounded.items.tolist(), strict=True)]
    )
    is_item = np.isfinite(expected)
    assert (np.isfinite(rounded.scores) == is_item).all()
    errors = np.abs(rounded.scores[is_item] - expected[is_item])
    spread = exact.scores[np.isfinite(exact.scores)].std()
    assert errors.max() > 0
    assert errors.mean() < (0.002 if precision == "fp16" else 0.03) * spread


@fewer_bits
def test_offsets_hold_in_fewer_bits(precision: ScoringPrecision) -> None:
    encoder = small_encoder(SIZE)
    offsets = np.zeros(SIZE, np.float32)
    offsets[FIRST_ITEM : SIZE - 10], offsets[SIZE - 1] = -np.inf, 50
    ranker = Ranker(read_graph(exported(encoder)), "cpu", precision, offsets)
    histories, users = indexed([3, 4], [5]), np.arange(2)
    tokens = scoring_tokens(histories, users, encoder.shape)
    ranking, states = ranker.rank(tokens, seen_pairs(histories, users), 12), ranker.encode(tokens)
    assert {item for row in ranking.items[:, :10].tolist() for item in row} == set(range(SIZE - 10, SIZE))
    assert (ranking.items[:, 0] == SIZE - 1).all()
    assert (ranking.scores[:, 10:] == -np.inf).all()
    assert states.dtype == np.float32


@fewer_bits
@masked_is_slow
def test_what_was_learned_is_still_known(precision: ScoringPrecision, objective: Objective, tmp_path: Path) -> None:
    config = ScoringConfig(device="cpu", precision=precision, top_k=1)
    score(succession_sequences(), learned_model(objective), config, tmp_path / "recs.parquet")
    recs = pq.read_table(tmp_path / "recs.parquet").to_pylist()
    hits = [row["item_id"] == SUCCESSIONS[row["user_id"]][-1] for row in recs]
    assert len(hits) == len(SUCCESSIONS)
    assert sum(hits) > 0.95 * len(hits)


def test_int8_leaves_the_embeddings_that_are_looked_up_as_they_are() -> None:
    encoder = small_encoder(SIZE)
    converted = at_precision(read_graph(exported(encoder)), "int8")
    graph = onnx.load_model_from_string(converted.proto).graph
    (looked_up,) = (
        node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[0] in converted.tensors
    )
    assert np.array_equal(converted.tensors[looked_up], encoder.item_embeddings.weight.detach().numpy())
    assert {node.op_type for node in graph.node} & {"MatMulInteger"}


def test_items_are_quantized_as_onnxruntime_does() -> None:
    graph = read_graph(exported(small_encoder(SIZE)))
    ((name, tensor),) = graph.tensors.items()
    rows = tensor.copy()
    rows[3], rows[4], rows[5], rows[6, 1:] = 0, 1e-40, 3e38, 0
    tensors = at_precision(Graph(graph.proto, {name: rows}), "int8").tensors
    columns, scales, zeros = (
        next(tensors[key] for key in tensors if key.endswith(f"_{part}"))
        for part in ("quantized", "scale", "zero_point")
    )
    for item, row in enumerate(rows):
        kind = onnx.TensorProto.INT8
        zero, scale, expected = quantization.quant_utils.quantize_data(row, kind, symmetric=True, reduce_range=True)
        assert (zeros[item], scales[item]) == (zero, scale)
        assert columns[:, item].tolist() == expected.tolist()
        assert columns.dtype == expected.dtype


@given(
    st.lists(
        st.floats(width=32) | st.floats(-(2.0**-20), 2.0**-20, width=32) | st.floats(-7e4, 7e4, width=32), min_size=1
    )
)
def test_items_are_rounded_to_fp16_as_onnxruntime_does(values: list[float]) -> None:
    edges = [np.nextafter(np.float32(edge), np.float32(to)) for edge in EDGES for to in (edge, -np.inf, np.inf)]
    tensor = np.array([*values, *edges], np.float32)[:, None]
    own, expected = _halves(tensor), convert_np_to_float16(tensor)
    assert own.view(np.uint16).tolist() == expected.view(np.uint16).tolist()


def saturating_product(states: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """Multiply as processors with AVX2 but no VNNI do: vpmaddubsw adds pairs in 16 bits, vpmaddwd sums the pairs."""
    products = states.astype(np.int32)[:, :, None] * weights.astype(np.int32)
    pairs = products[:, 0::2] + products[:, 1::2]
    product: NDArray[np.int32] = np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1, dtype=np.int32)
    return product


def exact_product(states: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    product: NDArray[np.int32] = states.astype(np.int32) @ weights.astype(np.int32)
    return product


def whole(graph: Graph) -> onnx.ModelProto:
    """The protobuf of a graph with all tensors in it."""
    model = onnx.load_model_from_string(graph.proto)
    for tensor in model.graph.initializer:
        if tensor.name in graph.tensors:
            tensor.CopyFrom(onnx.numpy_helper.from_array(graph.tensors[tensor.name], tensor.name))
    return model


def integer_products(graph: Graph, inputs: dict[str, Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Run an int8 graph and yield the states (rows, k) uint8 and the weights (k, n) int8 of each product."""
    model = whole(graph)
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert len(nodes) >= 6
    for node in nodes:
        assert not weights[node.input[3]].any(), "weights have a zero point"
    outputs = sorted({node.input[0] for node in nodes})
    kind = onnx.TensorProto.UINT8
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in outputs)
    # Without fused operators, which would hide the factors of the products.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    states = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    for node in nodes:
        matrix = weights[node.input[1]]
        yield states[node.input[0]].reshape(-1, len(matrix)), matrix


def in_full_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use all 8 bits for weights."""
    quantize = quantization.quantize_dynamic

    def quantize_in_full_range(*given: Any, **options: Any) -> None:
        quantize(*given, **options | {"reduce_range": False})

    monkeypatch.setattr(quantization, "quantize_dynamic", quantize_in_full_range)


def products_of(encoder: Encoder) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Export an encoder, make it int8 and run it: the states and the weights of each of its products."""
    histories, users = random_histories(), np.arange(40)
    seen = seen_pairs(histories, users)
    inputs = {
        "tokens": scoring_tokens(histories, users, encoder.shape),
        "seen_rows": seen.rows,
        "seen_items": seen.items,
        **dict.fromkeys(("habit_rows", "habit_items", "asked_rows", "asked_items"), NO_PAIRS.rows),
        "habit_scores": np.empty(0, np.float32),
        "top_k": np.array(10),
        "item_offsets": np.zeros(SIZE, np.float32),
    }
    return list(integer_products(at_precision(read_graph(exported(encoder)), "int8"), inputs))


def is_exact(states: NDArray[np.uint8], weights: NDArray[np.int8]) -> bool:
    return np.array_equal(saturating_product(states, weights), exact_product(states, weights))


def at_their_worst(weights: NDArray[np.int8]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Return the largest states, and the weights ordered so that the largest of one sign form pairs."""
    return np.full((1, len(weights)), 255, np.uint8), np.sort(weights, axis=0)


@masked_is_slow
def test_int8_is_exact_where_pairs_of_products_saturate(objective: Objective) -> None:
    for states, weights in products_of(small_encoder(SIZE, objective=objective)):
        assert is_exact(states, weights)
        assert is_exact(*at_their_worst(weights))


@masked_is_slow
def test_all_8_bits_would_not_be_exact(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    in_full_range(monkeypatch)
    # Those with the matrix of all items are always in 7 bits.
    products = [pair for pair in products_of(small_encoder(SIZE, objective=objective)) if pair[1].shape[1] != SIZE]
    assert not any(is_exact(*at_their_worst(weights)) for _, weights in products)
    assert not all(is_exact(states, weights) for states, weights in products)


def test_the_conversion_to_fewer_bits_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    graph = load_model(trained_model()).graph
    caplog.clear()
    for precision in FEWER_BITS:
        at_precision(graph, precision)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_int8_on_a_gpu_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "recs.parquet"
    options = ("--precision", "int8", "--device", "cuda")
    assert (
        run_cli("score", "--sequences", training_sequences(), "--model", trained_model(), "--out", out, *options) == 2
    )
    assert "--precision int8: expected fp16 or fp32 on a GPU" in capsys.readouterr().err
    assert not out.exists()
