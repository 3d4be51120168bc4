"""Graphs that are changed for a session rank as before."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import onnx
import pytest

from batchrec.arrays import Floats
from batchrec.model import graph_changes
from batchrec.model import ranker as ranker_module
from batchrec.model.batching import Histories, scoring_tokens, seen_pairs
from batchrec.model.blend import NO_HABITS, Blend, ScoredPairs
from batchrec.model.directory import read_graph
from batchrec.model.graph import Graph
from batchrec.model.ranker import Ranker
from batchrec.model.runs import GROUP
from batchrec.tables.schemas import FIRST_ITEM
from tests.model.test_cuda_operators import uncovered
from tests.support.models import indexed, small_encoder, zero_blend
from tests.training.test_wide_top_k import graph_of_habits, of_encoder, wide_graph


def blend_of(size: int) -> Blend:
    generator = np.random.default_rng(1)
    return replace(
        zero_blend(size),
        scale=np.array([0.5], np.float32),
        biases=generator.normal(size=size).astype(np.float32),
        neighbours=generator.integers(FIRST_ITEM, size, (size, 3), dtype=np.int32),
        similarities=generator.random((size, 3), dtype=np.float32),
        recency=np.array([0.5, 0.25], np.float32),
        habit=np.ones(2, np.float32),
    )


def plain_graph() -> Graph:
    return read_graph(of_encoder()[1])


def graph_of(size: int) -> Graph:
    """A graph with every part of a blend."""
    return read_graph(wide_graph(f"changed-{size}", small_encoder(size), blend_of(size)))


def histories(size: int) -> Histories:
    generator = np.random.default_rng(2)
    return indexed(*(generator.integers(FIRST_ITEM, size, n).tolist() for n in (1, 2, 5, 9, 30)))


def offsets_of(size: int) -> Floats:
    offsets = np.linspace(-0.2, 0.2, size, dtype=np.float32)
    offsets[::7] = -np.inf
    return offsets


def in_a_product(graph: Graph, offsets: Floats | None, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(graph_changes, "WIDE", 0)
    return graph_changes.with_biases_in_product(graph, offsets)


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in onnx.ModelProto.FromString(graph.proto).graph.node]


@pytest.mark.parametrize("offsets", [False, True])
# Whole groups, and a rest.
@pytest.mark.parametrize(("size", "blended"), [(3 * GROUP, True), (101, True), (101, False)])
def test_biases_in_the_product_change_no_list(
    size: int, blended: bool, offsets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, added = graph_of(size) if blended else plain_graph(), offsets_of(size) if offsets else None
    changed = in_a_product(graph, added, monkeypatch)
    # One more appends ones to the states.
    assert operators(changed).count("Gemm") == operators(graph).count("Gemm") + 1
    table, users = histories(size), np.arange(5)
    tokens, seen = scoring_tokens(table, users, small_encoder(size).shape), seen_pairs(table, users)
    habits = ScoredPairs(np.array([0, 3]), np.array([5, 9]), np.array([2, 3], np.float32))
    top_k = size - FIRST_ITEM
    before, after = (
        Ranker(each, "cpu", item_offsets=added).rank(tokens, seen, top_k, habits if blended else NO_HABITS)
        for each in (graph, changed)
    )
    assert after.is_item.tolist() == before.is_item.tolist()
    assert after.items[after.is_item].tolist() == before.items[before.is_item].tolist()
    assert np.allclose(after.scores[after.is_item], before.scores[before.is_item], rtol=1e-5, atol=1e-6)


def test_other_graphs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(101)
    assert graph_changes.with_biases_in_product(graph, None) is graph
    without_encoder = graph_of_habits(3 * GROUP)
    assert in_a_product(without_encoder, None, monkeypatch) is without_encoder


def test_cuda_implements_each_operator_of_the_changed_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = graph_changes.without_outputs(in_a_product(graph_of(101), None, monkeypatch), "asked_scores")
    model = onnx.ModelProto.FromString(changed.proto)
    for tensor in model.graph.initializer:
        if tensor.name in changed.tensors:
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed.tensors[tensor.name], tensor.name))
    onnx.checker.check_model(model)
    assert uncovered(model) == set()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_ranker_changes_the_graph_if_there_is_a_gpu(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Graph] = []

    def opening(graph: Graph, _: str) -> Any:
        opened.append(graph)
        return open_session(graph, ranker_module.CPU)

    open_session = ranker_module.open_session
    monkeypatch.setattr(ranker_module, "open_session", opening)
    monkeypatch.setattr(graph_changes, "WIDE", 0)
    graph, table, users = graph_of(101), histories(101), np.arange(5)
    cases: list[tuple[Literal["auto", "cpu"], bool]] = [("auto", False), ("auto", True), ("cpu", True)]
    for device, has_gpu in cases:
        monkeypatch.setattr(ranker_module, "has_nvidia_device", lambda has_gpu=has_gpu: has_gpu)
        ranker = Ranker(graph, device, precision, offsets_of(101), scores_pairs=False)
        ranker.rank(scoring_tokens(table, users, small_encoder(101).shape), seen_pairs(table, users), 9)
    assert ["item_matrix" in each.tensors for each in opened] == [False, True, False]


def test_a_graph_without_an_output_lacks_what_only_that_needs() -> None:
    graph = plain_graph()
    pruned = graph_changes.without_outputs(graph, "asked_scores")
    assert "GatherND" in operators(graph)
    assert "GatherND" not in operators(pruned)
    assert pruned.tensors.keys() == graph.tensors.keys()
    table, users = histories(101), np.arange(5)
    tokens, seen = scoring_tokens(table, users, small_encoder(101).shape), seen_pairs(table, users)
    whole, part = (
        Ranker(graph, "cpu", scores_pairs=scores_pairs).rank(tokens, seen, 99) for scores_pairs in (True, False)
    )
    assert part.items.tolist() == whole.items.tolist()
    assert part.scores.tolist() == whole.scores.tolist()


def test_what_a_graph_in_an_attribute_reads_stays() -> None:
    number = onnx.helper.make_tensor_value_info("number", onnx.TensorProto.FLOAT, [1])
    chosen, other = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("a", "b"))
    flag = onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])
    branches = {
        name: onnx.helper.make_graph([onnx.helper.make_node("Neg", ["double"], [name])], name, [], [number])
        for name in ("then_branch", "else_branch")
    }
    for name, branch in branches.items():
        branch.output[0].name = name
    nodes = [
        onnx.helper.make_node("Add", ["number", "number"], ["double"]),
        onnx.helper.make_node("If", ["flag"], ["a"], **branches),
        onnx.helper.make_node("Exp", ["number"], ["b"]),
    ]
    whole = onnx.helper.make_model(onnx.helper.make_graph(nodes, "whole", [number, flag], [chosen, other]))
    pruned = onnx.ModelProto.FromString(graph_changes.without_outputs(Graph(whole.SerializeToString()), "b").proto)
    assert [node.op_type for node in pruned.graph.node] == ["Add", "If"]
    onnx.checker.check_model(pruned, full_check=True)
