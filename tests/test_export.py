from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.batching import SeenPairs, next_item_tokens, seen_pairs
from batchrec.encoder import Encoder
from batchrec.errors import DeviceError, ModelError
from batchrec.export import check_parity, export_encoder
from batchrec.ranker import Ranker
from batchrec.schemas import FIRST_ITEM
from tests.models import indexed, scratch, small_encoder

SIZE, MAX_LEN = 23, 6
N_ITEMS = SIZE - FIRST_ITEM


@cache
def encoder() -> Encoder:
    return small_encoder(SIZE, n_layers=2)


@cache
def graph() -> Path:
    file = scratch() / "random.onnx"
    export_encoder(encoder(), file)
    return file


@cache
def ranker() -> Ranker:
    return Ranker(graph().read_bytes(), "cpu")


def plain_scores(histories: list[list[int]], seen: list[list[int]]) -> list[dict[int, float]]:
    """The scores of every item that may be recommended, by torch, one user at a time."""
    found = []
    for history, banned in zip(histories, seen, strict=True):
        tokens = torch.from_numpy(next_item_tokens(indexed(history), np.array([0]), MAX_LEN))
        with torch.inference_mode():
            states = encoder()(tokens, torch.tensor([[tokens.shape[1] - 1]]))[:, 0]
            scores = encoder().score_items(states)[0].tolist()
        found.append({item: scores[item] for item in range(FIRST_ITEM, SIZE) if item not in banned})
    return found


def assert_ranks_like_torch(histories: list[list[int]], top_k: int, *, keep_seen: bool) -> None:
    table, users = indexed(*histories), np.arange(len(histories))
    seen = seen_pairs(table, users)
    if keep_seen:
        seen = SeenPairs(seen.rows[:0], seen.items[:0])
    ranking = ranker().rank(next_item_tokens(table, users, MAX_LEN), seen, top_k)
    assert ranking.scores.shape == ranking.items.shape == (len(histories), top_k)
    assert ranking.scores.dtype == np.float32
    assert ranking.items.dtype == np.int32
    expected = plain_scores(histories, [[] if keep_seen else history for history in histories])
    for items, scores, own in zip(ranking.items.tolist(), ranking.scores.tolist(), expected, strict=True):
        n_found = min(top_k, len(own))
        assert scores[:n_found] == pytest.approx(sorted(own.values(), reverse=True)[:n_found], abs=1e-4)
        assert scores[:n_found] == pytest.approx([own[item] for item in items[:n_found]], abs=1e-4)
        assert len(set(items[:n_found])) == n_found
        assert scores[n_found:] == [-np.inf] * (top_k - n_found)


item_indexes = st.integers(FIRST_ITEM, SIZE - 1)


@settings(max_examples=40)
@given(
    st.lists(st.lists(item_indexes, min_size=1, max_size=3 * MAX_LEN), min_size=1, max_size=6),
    st.integers(1, N_ITEMS),
    st.booleans(),
)
def test_the_graph_ranks_like_torch(histories: list[list[int]], top_k: int, keep_seen: bool) -> None:
    assert_ranks_like_torch(histories, top_k, keep_seen=keep_seen)


@pytest.mark.parametrize("n_users", [1, 2, 33])
@pytest.mark.parametrize("length", [1, MAX_LEN - 2, MAX_LEN - 1, MAX_LEN, 40])
def test_batches_and_lengths_are_free(n_users: int, length: int) -> None:
    histories = [[FIRST_ITEM + (user + 3 * place) % N_ITEMS for place in range(length)] for user in range(n_users)]
    assert_ranks_like_torch(histories, 5, keep_seen=False)
    assert_ranks_like_torch(histories, 5, keep_seen=True)


def test_top_k_goes_up_to_the_catalogue() -> None:
    for top_k in (1, N_ITEMS - 1, N_ITEMS):
        assert_ranks_like_torch([[2, 3], [4]], top_k, keep_seen=True)


def test_who_has_seen_everything_gets_nothing() -> None:
    assert_ranks_like_torch([list(range(FIRST_ITEM, SIZE)), [2]], N_ITEMS, keep_seen=False)


def test_an_item_seen_many_times_is_masked_like_one_seen_once() -> None:
    assert_ranks_like_torch([[7] * 5000 + [8], [9]], 4, keep_seen=False)


def test_every_operator_is_a_standard_one() -> None:
    model = onnx.load(graph())
    onnx.checker.check_model(model, full_check=True)
    nodes = [node for function in model.functions for node in function.node] + list(model.graph.node)
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    assert [opset.domain for opset in model.opset_import if opset.domain not in {"", "ai.onnx"}] == []
    assert len(model.functions) == 0


def test_the_graph_is_one_file() -> None:
    model = onnx.load(graph(), load_external_data=False)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_parity_holds_for_the_weights_that_were_exported_and_no_others() -> None:
    histories = indexed([2, 3, 4], [5], [6, 7, 8, 9, 10, 11, 12])
    assert check_parity(encoder(), graph(), histories, MAX_LEN) < 1e-4
    with pytest.raises(RuntimeError, match="differ"):
        check_parity(small_encoder(SIZE, seed=1, n_layers=2), graph(), histories, MAX_LEN)


def test_parity_fails_where_scores_are_no_numbers(tmp_path: Path) -> None:
    broken = small_encoder(SIZE, n_layers=2)
    with torch.no_grad():
        broken.item_embeddings.weight.fill_(float("nan"))
    model = onnx.load(graph())
    for tensor in model.graph.initializer:
        if tuple(tensor.dims) == broken.item_embeddings.weight.shape:
            values = np.full(tensor.dims, np.nan, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(RuntimeError):
        check_parity(broken, tmp_path / "broken.onnx", indexed([2, 3, 4], [5]), MAX_LEN)


@pytest.mark.parametrize("contents", [b"", b"no graph", None], ids=["empty", "text", "truncated"])
def test_a_broken_graph_is_a_model_error(contents: bytes | None) -> None:
    if contents is None:
        contents = graph().read_bytes()[:-1000]
    with pytest.raises(ModelError):
        Ranker(contents, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error() -> None:
    with pytest.raises(DeviceError, match="--device cpu"):
        Ranker(graph().read_bytes(), "cuda")
