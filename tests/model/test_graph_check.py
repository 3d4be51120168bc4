"""Graphs that do not belong to their model or refer to something outside it, and their outputs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchrec.errors import ModelError
from batchrec.model.batching import SeenPairs
from batchrec.model.directory import load_model
from batchrec.model.graph import Graph, external_tensor
from batchrec.model.ranker import CPU, Ranker, open_session
from tests.support.models import run_cli, trained_model, training_sequences
from tests.support.strangers import Change, assert_refused, reseal


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(trained_model(), tmp_path / "model"))


def graph(change: Callable[[onnx.ModelProto], object]) -> Change:
    def changed(model: Path) -> None:
        proto = onnx.load(model / "encoder.onnx", load_external_data=False)
        change(proto)
        (model / "encoder.onnx").write_bytes(proto.SerializeToString())

    return changed


def tensor_of(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    tensors: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in proto.graph.initializer}
    return tensors[f"encoder.{name}"]


def argument(name: str, change: Callable[[onnx.ValueInfoProto], object]) -> Change:
    def changed(proto: onnx.ModelProto) -> None:
        change(next(value for value in [*proto.graph.input, *proto.graph.output] if value.name == name))

    return graph(changed)


def set_dim(value: onnx.ValueInfoProto, place: int, size: int) -> None:
    value.type.tensor_type.shape.dim[place].dim_value = size


def other_graph(model: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(made), model / "encoder.onnx")


def fewer_places(proto: onnx.ModelProto) -> None:
    tensor = tensor_of(proto, "position_embeddings.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:-1], tensor.name))


def other_places(proto: onnx.ModelProto) -> None:
    tensor = tensor_of(proto, "position_embeddings.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))


def misspelled(text: str) -> Change:
    """End each occurrence of a text in a byte that UTF-8 does not have."""

    def changed(model: Path) -> None:
        file = model / "encoder.onnx"
        file.write_bytes(file.read_bytes().replace(text.encode(), text.encode()[:-1] + b"\xff"))

    return changed


def embeddings_within(model: Path) -> None:
    proto = onnx.load(model / "encoder.onnx")
    (model / "encoder.onnx").write_bytes(proto.SerializeToString())


def reference(**changes: str | None) -> Change:
    """Change what the graph says of the place of the embeddings; None takes it out."""

    def changed(proto: onnx.ModelProto) -> None:
        tensor = tensor_of(proto, "item_embeddings.weight")
        entries = {entry.key: entry.value for entry in tensor.external_data} | changes
        tensor.ClearField("external_data")
        for key, value in entries.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)

    return graph(changed)


def embeddings(change: Callable[[onnx.TensorProto], object]) -> Change:
    return graph(lambda proto: change(tensor_of(proto, "item_embeddings.weight")))


def listed_pad(proto: onnx.ModelProto) -> None:
    tensor = tensor_of(proto, "item_biases")
    values = numpy_helper.to_array(tensor).copy()
    values[0] = 100
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


ELSEWHERE = "tensor 'encoder.item_embeddings.weight' is external data; expected only those of weights.safetensors"
GRAPHS: dict[str, tuple[Change, str]] = {
    "nothing": (lambda model: (model / "encoder.onnx").write_bytes(b""), "its inputs are ; expected tokens"),
    "text": (lambda model: (model / "encoder.onnx").write_bytes(b"graph"), "not an ONNX file"),
    "another graph": (other_graph, "its inputs are x; expected tokens"),
    "an output less": (
        graph(lambda proto: proto.graph.output.pop()),
        "its outputs are scores, items, states; expected",
    ),
    "an output twice": (
        graph(lambda p: p.graph.output.append(p.graph.output[0])),
        "scores, items, states, asked_scores, scores",
    ),
    "another name": (argument("top_k", lambda v: setattr(v, "name", "k")), "item_offsets, k; expected"),
    "items of 64 bits": (
        argument("items", lambda v: setattr(v.type.tensor_type, "elem_type", TensorProto.INT64)),
        "output items is INT64 (any, any); expected INT32 (any, any)",
    ),
    "an unknown type": (
        argument("items", lambda v: setattr(v.type.tensor_type, "elem_type", 999)),
        "output items is 999 (any, any)",
    ),
    "no shape": (argument("tokens", lambda v: v.type.tensor_type.ClearField("shape")), "tokens is without a shape"),
    "other items": (argument("item_offsets", lambda v: set_dim(v, 0, 43)), "is FLOAT (43); expected FLOAT (42)"),
    "other states": (argument("states", lambda v: set_dim(v, 1, 7)), "is FLOAT (any, 7); expected FLOAT (any, 8)"),
    "one user": (argument("tokens", lambda v: set_dim(v, 0, 1)), "tokens is INT32 (1, any); expected INT32 (any, any)"),
    "fewer places": (graph(fewer_places), "encoder.position_embeddings.weight is (7, 8); expected float32 (8, 8)"),
    "other places": (graph(other_places), "position_embeddings.weight differs from the weights file"),
    "embeddings within": (embeddings_within, "item_embeddings.weight is in the graph; expected a reference to weights"),
    "embeddings of another file": (reference(location="other.safetensors"), ELSEWHERE),
    "embeddings above the folder": (reference(location="../model/weights.safetensors"), ELSEWHERE),
    "embeddings of an absolute path": (reference(location="/proc/self/environ"), ELSEWHERE),
    "embeddings in memory": (reference(location="*/_ORT_MEM_ADDR_/*"), ELSEWHERE),
    "embeddings of another offset": (reference(offset="0"), ELSEWHERE),
    "embeddings without an offset": (reference(offset=None), ELSEWHERE),
    "embeddings of another length": (reference(length="4"), ELSEWHERE),
    "embeddings with a checksum": (reference(checksum="0" * 40), ELSEWHERE),
    "embeddings of 32-bit integers": (embeddings(lambda t: setattr(t, "data_type", TensorProto.INT32)), ELSEWHERE),
    "transposed embeddings": (embeddings(lambda t: t.dims.reverse()), ELSEWHERE),
    "embeddings with values": (embeddings(lambda t: setattr(t, "raw_data", bytes(4))), ELSEWHERE),
    "biases in the other file": (
        graph(
            lambda p: tensor_of(p, "item_biases").CopyFrom(external_tensor("encoder.item_biases", np.zeros(42, "f4")))
        ),
        "tensor 'encoder.item_biases' is external data",
    ),
    "embeddings twice": (
        graph(lambda p: p.graph.initializer.append(tensor_of(p, "item_embeddings.weight"))),
        "a weight with a row per item occurs twice",
    ),
    "PAD recommended": (graph(listed_pad), "item_biases differs from the weights file"),
    "a weight renamed": (
        graph(lambda p: setattr(tensor_of(p, "item_biases"), "name", "x")),
        "lacks the weight encoder.item_biases",
    ),
    "a weight twice": (graph(lambda p: p.graph.initializer.append(p.graph.initializer[0])), "occurs twice"),
    "a huge tensor": (
        graph(lambda p: p.graph.initializer.add(name="huge", data_type=1, dims=[1 << 40], raw_data=b"1234")),
        "tensor 'huge' holds 1 values; expected 1099511627776",
    ),
    "an input that is not UTF-8": (misspelled("top_k"), "its input is not UTF-8"),
    "an operator that is not UTF-8": (misspelled("TopK"), "its op_type is not UTF-8"),
    "a weight that is not UTF-8": (misspelled("encoder.item_embeddings.weight"), "is not UTF-8"),
    "a tensor of texts": (
        graph(lambda p: p.graph.initializer.append(numpy_helper.from_array(np.array(["x"], object), "t"))),
        "tensor 't' is STRING [1]",
    ),
}


@pytest.mark.parametrize(("change", "said"), GRAPHS.values(), ids=GRAPHS.keys())
def test_a_graph_that_does_not_fit_is_refused(
    change: Change, said: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(model)
    reseal(model)
    line = assert_refused(model, capsys)
    assert "encoder.onnx: " in line
    assert said in line


def elsewhere(location: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def in_constant(proto: onnx.ModelProto, secret: onnx.TensorProto) -> None:
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=secret))


def in_subgraph(proto: onnx.ModelProto, secret: onnx.TensorProto) -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["secret"], ["s"])], "b", [], [], [secret])
    branch.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [1]))
    proto.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def in_function(proto: onnx.ModelProto, secret: onnx.TensorProto) -> None:
    node = helper.make_node("Constant", [], ["y"], value=secret)
    proto.functions.append(helper.make_function("d", "f", [], ["y"], [node], [helper.make_opsetid("", 18)]))


def sparse(secret: onnx.TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(secret, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [1 << 40])


PLACES: dict[str, Callable[[onnx.ModelProto, onnx.TensorProto], object]] = {
    "initializer": lambda proto, secret: proto.graph.initializer.append(secret),
    "sparse initializer": lambda proto, secret: proto.graph.sparse_initializer.append(sparse(secret)),
    "constant": in_constant,
    "sparse constant": lambda proto, secret: proto.graph.node.append(
        helper.make_node("Constant", [], ["c"], sparse_value=sparse(secret))
    ),
    "subgraph": in_subgraph,
    "function": in_function,
    "training": lambda proto, secret: proto.training_info.add().algorithm.initializer.append(secret),
}


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/proc/self/environ", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("place", PLACES)
def test_a_graph_with_external_data_is_refused(
    place: str, location: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(model)
    (model / "secret.bin").write_bytes(bytes(4))
    graph(lambda proto: PLACES[place](proto, elsewhere(location)))(model)
    reseal(model)
    line = assert_refused(model, capsys)
    assert ("is sparse" if "sparse" in place else "is external data") in line


def test_a_location_without_its_flag_is_refused_too(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = elsewhere("secret.bin")
    secret.data_location = TensorProto.DEFAULT
    graph(lambda proto: proto.graph.initializer.append(secret))(model)
    reseal(model)
    assert "is external data" in assert_refused(model, capsys)


@pytest.mark.parametrize("place", sorted(set(PLACES) - {"initializer", "sparse initializer", "sparse constant"}))
def test_only_an_initializer_of_the_graph_itself_is_in_the_weights_file(
    place: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def move(proto: onnx.ModelProto) -> None:
        PLACES[place](proto, tensor_of(proto, "item_embeddings.weight"))

    graph(move)(model)
    reseal(model)
    assert ELSEWHERE in assert_refused(model, capsys)


def test_onnxruntime_itself_finds_nothing_in_the_working_directory(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In case the check of the graph ever misses a place.
    monkeypatch.chdir(model)
    proto = onnx.load("encoder.onnx")
    tensor = tensor_of(proto, "item_embeddings.weight")
    Path("secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    contents = proto.SerializeToString()
    # Without that setting it would find the file.
    assert ort.InferenceSession(contents, providers=[CPU]).get_inputs()
    with pytest.raises(ModelError, match=r"secret\.bin"):
        open_session(Graph(contents), CPU)


def test_a_model_is_the_same_from_any_folder(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = load_model(trained_model())
    monkeypatch.chdir(tmp_path)
    loaded = load_model(Path("model"))
    assert (loaded.encoder, loaded.weights, loaded.manifest) == (expected.encoder, expected.weights, expected.manifest)


def answering(scores: list[list[float]], items: list[list[int]]) -> bytes:
    """A graph with the contract's arguments for three items that always returns the same ranking."""
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT32, ["users", "length"]),
        helper.make_tensor_value_info("seen_rows", TensorProto.INT64, ["pairs"]),
        helper.make_tensor_value_info("seen_items", TensorProto.INT64, ["pairs"]),
        *(helper.make_tensor_value_info(f"habit_{part}", TensorProto.INT64, ["habits"]) for part in ("rows", "items")),
        helper.make_tensor_value_info("habit_scores", TensorProto.FLOAT, ["habits"]),
        *(helper.make_tensor_value_info(f"asked_{part}", TensorProto.INT64, ["asked"]) for part in ("rows", "items")),
        helper.make_tensor_value_info("item_offsets", TensorProto.FLOAT, [5]),
        helper.make_tensor_value_info("top_k", TensorProto.INT64, []),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["users", "k"]),
        helper.make_tensor_value_info("items", TensorProto.INT32, ["users", "k"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(scores, np.float32), "s"),
        numpy_helper.from_array(np.array(items, np.int32), "i"),
    ]
    nodes = [helper.make_node("Identity", ["s"], ["scores"]), helper.make_node("Identity", ["i"], ["items"])]
    made = helper.make_graph(nodes, "g", inputs, outputs, constants)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(proto.SerializeToString())


INF, NAN = float("inf"), float("nan")
RANKINGS: dict[str, tuple[list[list[float]], list[list[int]], str | None]] = {
    "a ranking": ([[3, 2, 1], [1, 1, 1]], [[2, 3, 4], [4, 2, 3]], None),
    "places without an item": ([[3, -INF, -INF], [-INF, -INF, -INF]], [[2, 0, 2], [0, 0, 1]], None),
    "no number": ([[3, 2, 1], [1, NAN, 1]], [[2, 3, 4], [4, 2, 3]], "not a finite number"),
    "an endless score": ([[INF, 2, 1], [1, 1, 1]], [[2, 3, 4], [4, 2, 3]], "not a finite number"),
    "an item twice": ([[3, 2, 1], [1, 1, 1]], [[2, 3, 2], [4, 2, 3]], "an item twice"),
    "a rising score": ([[3, 2, 1], [1, 2, 1]], [[2, 3, 4], [4, 2, 3]], "not by score"),
    "PAD": ([[3, 2, 1], [1, 1, 1]], [[2, 3, 0], [4, 2, 3]], "not in the vocabulary"),
    "MASK": ([[3, 2, 1], [1, 1, 1]], [[2, 3, 1], [4, 2, 3]], "not in the vocabulary"),
    "an index beyond the last": ([[3, 2, 1], [1, 1, 1]], [[2, 3, 5], [4, 2, 3]], "not in the vocabulary"),
    "an index beyond the last without a score": (
        [[3, 2, -INF], [1, 1, 1]],
        [[2, 3, 5], [4, 2, 3]],
        "not in the vocabulary",
    ),
    "an index below 0": ([[3, 2, -INF], [1, 1, 1]], [[2, 3, -1], [4, 2, 3]], "not in the vocabulary"),
    "a row less": ([[3, 2, 1]], [[2, 3, 4]], "expected \\(2, 3\\)"),
    "a place more": ([[3, 2, 1, 0], [1, 1, 1, 0]], [[2, 3, 4, 4], [4, 2, 3, 3]], "expected \\(2, 3\\)"),
}


@pytest.mark.parametrize(("scores", "items", "said"), RANKINGS.values(), ids=RANKINGS.keys())
def test_outputs_that_are_not_a_ranking_are_refused(
    scores: list[list[float]], items: list[list[int]], said: str | None
) -> None:
    ranker = Ranker(Graph(answering(scores, items)), "cpu")
    nothing = SeenPairs(np.empty(0, np.int64), np.empty(0, np.int64))
    tokens = np.array([[2], [3]], np.int32)
    if said is None:
        assert ranker.rank(tokens, nothing, 3).items.tolist() == items
    else:
        with pytest.raises(ModelError, match=said):
            ranker.rank(tokens, nothing, 3)


def test_a_graph_that_fails_at_its_work_is_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reach_beyond(proto: onnx.ModelProto) -> None:
        """Read the states of rows that do not exist."""
        for node in proto.graph.node:
            node.output[:] = [name if name != "states" else "inner_states" for name in node.output]
            node.input[:] = [name if name != "states" else "inner_states" for name in node.input]
        proto.graph.initializer.append(numpy_helper.from_array(np.array([10**6]), "far"))
        proto.graph.node.append(helper.make_node("Gather", ["inner_states", "far"], ["states"]))

    graph(reach_beyond)(model)
    reseal(model)
    load_model(model)
    out = model.parent / "recs.parquet"
    pins = model.parent / "pins.csv"
    pins.write_text("item_id,position\n1001,1\n", encoding="utf-8")
    options = ("--sequences", training_sequences(), "--model", model, "--out", out, "--device", "cpu", "--pins", pins)
    capsys.readouterr()
    assert run_cli("score", *options) == 4
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "onnxruntime cannot run the graph" in lines[0]
    assert not out.exists()
