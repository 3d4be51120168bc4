import gc
import shutil
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save

import batchrec
from batchrec.config import Objective
from batchrec.errors import ConfigError, DeviceError, ModelError
from batchrec.model.batching import SeenPairs, scoring_tokens, seen_pairs
from batchrec.model.directory import read_graph, replacing_model
from batchrec.model.graph import Graph
from batchrec.model.ranker import Ranker
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training import export
from batchrec.training.encoder import Encoder
from batchrec.training.export import check_parity, export_encoder
from tests.support.models import examples, indexed, next_item_scores, small_encoder, write_graph
from tests.support.shared import export_by_shape, exported, made_once

SIZE, MAX_LEN = 23, 6
N_ITEMS = SIZE - FIRST_ITEM


@cache
def encoder(objective: Objective) -> Encoder:
    return small_encoder(SIZE, objective=objective)


@cache
def folder(objective: Objective) -> Path:
    return exported(encoder(objective), export=export_encoder)


def graph(objective: Objective) -> Path:
    return folder(objective) / "encoder.onnx"


@cache
def ranker(objective: Objective) -> Ranker:
    return Ranker(read_graph(folder(objective)), "cpu")


def assert_ranks_like_torch(
    objective: Objective, histories: list[list[int]], top_k: int, *, keep_seen: bool = False
) -> None:
    """The graph's items and scores are the best allowed ones by torch, which scores one user at a time."""
    table, users = indexed(*histories), np.arange(len(histories))
    seen = seen_pairs(table, users)
    if keep_seen:
        seen = SeenPairs(seen.rows[:0], seen.items[:0])
    tokens = scoring_tokens(table, users, encoder(objective).shape)
    ranking = ranker(objective).rank(tokens, seen, top_k)
    assert ranking.scores.shape == ranking.items.shape == (len(histories), top_k)
    assert ranking.scores.dtype == np.float32
    assert ranking.items.dtype == np.int32
    for history, items, scores in zip(histories, ranking.items.tolist(), ranking.scores.tolist(), strict=True):
        all_scores = next_item_scores(encoder(objective), history)
        own = {item: all_scores[item] for item in range(FIRST_ITEM, SIZE) if keep_seen or item not in history}
        n_found = min(top_k, len(own))
        assert scores[:n_found] == pytest.approx(sorted(own.values(), reverse=True)[:n_found], abs=1e-4)
        assert scores[:n_found] == pytest.approx([own[item] for item in items[:n_found]], abs=1e-4)
        assert len(set(items[:n_found])) == n_found
        assert scores[n_found:] == [-np.inf] * (top_k - n_found)


item_indexes = st.integers(FIRST_ITEM, SIZE - 1)


@settings(max_examples=examples(40))
@given(
    st.lists(st.lists(item_indexes, min_size=1, max_size=3 * MAX_LEN), min_size=1, max_size=6),
    st.integers(1, N_ITEMS),
    st.booleans(),
)
def test_the_graph_ranks_like_torch(
    objective: Objective, histories: list[list[int]], top_k: int, keep_seen: bool
) -> None:
    assert_ranks_like_torch(objective, histories, top_k, keep_seen=keep_seen)


@pytest.mark.parametrize("n_users", [1, 2, 33])
@pytest.mark.parametrize("length", [1, MAX_LEN - 2, MAX_LEN - 1, MAX_LEN, 40])
def test_batches_and_lengths_may_have_any_size(n_users: int, length: int, objective: Objective) -> None:
    histories = [[FIRST_ITEM + (user + 3 * place) % N_ITEMS for place in range(length)] for user in range(n_users)]
    assert_ranks_like_torch(objective, histories, 5)
    assert_ranks_like_torch(objective, histories, 5, keep_seen=True)


def test_a_ranker_computes_with_the_weights_of_its_graph_and_keeps_them() -> None:
    graph = read_graph(folder("causal"))
    ((name, tensor),) = graph.tensors.items()
    weights = tensor.copy()
    kept, opened = weakref.ref(weights), Ranker(Graph(graph.proto, {name: weights}), "cpu")
    tokens = np.array([[3]], np.int32)
    before = opened.encode(tokens)
    weights[3] += 1
    assert not np.array_equal(opened.encode(tokens), before)
    del weights
    gc.collect()
    assert kept() is not None
    del opened
    gc.collect()
    assert kept() is None


def test_top_k_goes_up_to_the_catalogue(objective: Objective) -> None:
    for top_k in (1, N_ITEMS - 1, N_ITEMS):
        assert_ranks_like_torch(objective, [[2, 3], [4]], top_k, keep_seen=True)


def test_a_user_who_has_seen_everything_gets_nothing(objective: Objective) -> None:
    assert_ranks_like_torch(objective, [list(range(FIRST_ITEM, SIZE)), [2]], N_ITEMS)


def test_offsets_are_added_to_the_scores_of_items(objective: Objective) -> None:
    offsets = np.linspace(-3, 3, SIZE, dtype=np.float32)
    offsets[[4, 9]] = -np.inf
    history = [5, 6, 7]
    table, users = indexed(history), np.arange(1)
    tokens = scoring_tokens(table, users, encoder(objective).shape)
    ranking = Ranker(read_graph(folder(objective)), "cpu", item_offsets=offsets).rank(
        tokens, seen_pairs(table, users), N_ITEMS
    )
    own = np.array(next_item_scores(encoder(objective), history)) + offsets
    assert set(range(FIRST_ITEM, SIZE)) - set(ranking.items[0, :16].tolist()) == {4, 9, *history}
    assert ranking.scores[0, :16] == pytest.approx(own[ranking.items[0, :16]], abs=1e-4)
    assert (ranking.scores[0, 16:] == -np.inf).all()


def test_scores_follow_from_the_returned_states(objective: Objective) -> None:
    histories = [[5, 6, 7], [2], list(range(2, 12))]
    table, users = indexed(*histories), np.arange(3)
    tokens, nothing = scoring_tokens(table, users, encoder(objective).shape), np.empty(0, np.int64)
    ranking = ranker(objective).rank(tokens, SeenPairs(nothing, nothing), 4)
    states = ranker(objective).encode(tokens)
    weights, biases = encoder(objective).item_embeddings.weight.detach().numpy(), encoder(objective).item_biases
    scores = states @ weights.T + biases.detach().numpy()
    assert np.take_along_axis(scores, ranking.items, axis=1) == pytest.approx(ranking.scores, abs=1e-4)
    for history, row in zip(histories, scores.tolist(), strict=True):
        assert row == pytest.approx(next_item_scores(encoder(objective), history), abs=1e-4)


def test_the_catalogue_is_scored_by_one_product(objective: Objective) -> None:
    model = onnx.load(graph(objective), load_external_data=False).graph
    of_all_items = {tensor.name for tensor in model.initializer if SIZE in tensor.dims and len(tensor.dims) == 2}
    users = [node for node in model.node if of_all_items & set(node.input)]
    assert sorted(node.op_type for node in users) == ["Gather", "Gemm"]


def test_an_item_seen_many_times_is_excluded_like_one_seen_once(objective: Objective) -> None:
    assert_ranks_like_torch(objective, [[7] * 5000 + [8], [9]], 4)


def test_every_operator_is_a_standard_one(objective: Objective) -> None:
    onnx.checker.check_model(graph(objective), full_check=True)
    model = onnx.load(graph(objective))
    nodes = [node for function in model.functions for node in function.node] + list(model.graph.node)
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    assert [opset.domain for opset in model.opset_import if opset.domain not in {"", "ai.onnx"}] == []
    assert len(model.functions) == 0


def test_only_the_embeddings_are_in_the_other_file(objective: Objective) -> None:
    model = onnx.load(graph(objective), load_external_data=False)
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert [tensor.name for tensor in external] == ["encoder.item_embeddings.weight"]
    assert external[0].external_data[0].value == "weights.safetensors"


def test_the_graph_grows_by_a_bias_per_item() -> None:
    larger = exported(small_encoder(SIZE + 1000), export=export_encoder) / "encoder.onnx"
    assert larger.stat().st_size - graph("causal").stat().st_size == pytest.approx(4 * 1000, abs=100)


def test_any_runtime_finds_the_weights_next_to_the_graph(objective: Objective) -> None:
    table, users = indexed([3, 4, 5], [6]), np.arange(2)
    tokens, seen = scoring_tokens(table, users, encoder(objective).shape), seen_pairs(table, users)
    inputs = {
        "tokens": tokens,
        "seen_rows": seen.rows,
        "seen_items": seen.items,
        **dict.fromkeys(("habit_rows", "habit_items", "asked_rows", "asked_items"), np.empty(0, np.int64)),
        "habit_scores": np.empty(0, np.float32),
        "item_offsets": np.zeros(SIZE, np.float32),
        "top_k": np.array(5),
    }
    session = onnxruntime.InferenceSession(graph(objective), providers=["CPUExecutionProvider"])
    scores, items = session.run(["scores", "items"], inputs)
    expected = ranker(objective).rank(tokens, seen, 5)
    assert np.array_equal(items, expected.items)
    assert np.array_equal(scores, expected.scores)


def test_the_graph_says_nothing_of_where_it_was_exported(objective: Objective) -> None:
    assert str(Path(batchrec.__file__).parent).encode() not in graph(objective).read_bytes()
    parts = list(messages(onnx.load(graph(objective), load_external_data=False)))
    assert {type(part).__name__ for part in parts} >= {"ModelProto", "GraphProto", "NodeProto", "ValueInfoProto"}
    assert not [part for part in parts if getattr(part, "doc_string", "") or len(getattr(part, "metadata_props", ()))]


def messages(message: Any) -> Iterator[Any]:
    """All protobuf messages in one, at any depth, itself first."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from messages(part)


def test_parity_holds_only_for_the_exported_weights(objective: Objective) -> None:
    histories = indexed([2, 3, 4], [5], [6, 7, 8, 9, 10, 11, 12])
    assert check_parity(encoder(objective), folder(objective), histories) < 1e-4
    with pytest.raises(RuntimeError, match="differ"):
        check_parity(small_encoder(SIZE, seed=1, objective=objective), folder(objective), histories)


def test_parity_fails_if_scores_are_not_finite(tmp_path: Path) -> None:
    broken = small_encoder(SIZE, objective="causal")
    with torch.no_grad():
        broken.item_embeddings.weight.fill_(float("nan"))
    shutil.copy(graph("causal"), tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(save(broken.state_dict()))
    with pytest.raises(ModelError, match="not a finite number"):
        check_parity(broken, tmp_path, indexed([2, 3, 4], [5]))


def test_weights_that_the_disk_does_not_take_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(export, "save_file", fail)
    with (
        pytest.raises(ConfigError, match=r"model: cannot be written: .* No space left on device"),
        replacing_model(tmp_path / "model") as made,
    ):
        export.write_encoder(encoder("causal"), made)


@pytest.mark.usefixtures("no_export")
def test_shared_models_get_a_real_graph_even_without_export() -> None:
    def write_origin(file: Path) -> None:
        file.write_text(export.export_encoder.__name__, encoding="utf-8")

    assert made_once("origin-of-graphs", write_origin).read_text(encoding="utf-8") == export_by_shape.__name__
    assert export.export_encoder.__name__ == write_graph.__name__


@pytest.mark.parametrize("contents", [b"", b"no graph", None], ids=["empty", "text", "truncated"])
def test_a_broken_graph_is_a_model_error(contents: bytes | None) -> None:
    if contents is None:
        contents = graph("causal").read_bytes()[:-1000]
    with pytest.raises(ModelError):
        Ranker(Graph(contents), "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error() -> None:
    with pytest.raises(DeviceError, match="--device cpu"):
        Ranker(read_graph(folder("causal")), "cuda")
