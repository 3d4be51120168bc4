"""Changes of a graph for one session: without outputs nobody reads, and on a GPU without passes over wide scores."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from batchrec.arrays import Floats
from batchrec.model.graph import Graph, external_tensor, initializer_name
from batchrec.model.parts import Weights
from batchrec.model.runs import GROUP, WIDE

if TYPE_CHECKING:
    import onnx

_EMBEDDINGS, _MATRIX = initializer_name("item_embeddings.weight"), "item_matrix"
# The column of biases, and others of zeros: rows stay aligned for loads of 16 bytes, in fp16 too.
_N_COLUMNS = 8


def without_outputs(graph: Graph, *unread: str) -> Graph:
    """Return a graph without some outputs and without what only they need."""
    import onnx

    model = onnx.ModelProto.FromString(graph.proto)
    _drop(model.graph.output, lambda output: output.name in unread)
    return _pruned(model, graph.tensors)


def with_biases_in_product(graph: Graph, item_offsets: Floats | None) -> Graph:
    """Return the graph of a wide catalogue with scores that a single product writes; a graph of fewer items as it is.

    item_offsets: (vocabulary,) float32; None adds nothing. They and the biases become a column of the embeddings, and
    the states get a column of ones. Rows of -inf fill the embeddings up to whole groups, as training/wide_top_k.py
    fills up the scores. The input item_offsets has no effect any more.
    """
    import onnx

    embeddings = graph.tensors.get(_EMBEDDINGS)
    if embeddings is None or len(embeddings) <= WIDE:
        return graph
    model = onnx.ModelProto.FromString(graph.proto)
    makers = {name: node for node in model.graph.node for name in node.output}
    product = next((node for node in model.graph.node if _EMBEDDINGS in node.input[1:2]), None)
    biases = None if product is None or product.op_type != "Gemm" else _biases(model, makers, product)
    if product is None or biases is None:
        return graph
    filling, widened = _filling(model, product.output[0])
    matrix = _matrix(embeddings, biases if item_offsets is None else biases + item_offsets, filling is not None)
    size = matrix.shape[1] - _N_COLUMNS
    constants = {
        f"{_MATRIX}.columns": np.eye(size, size + _N_COLUMNS, dtype=np.float32),
        f"{_MATRIX}.ones": np.repeat(np.array([0, 1], np.float32), [size, _N_COLUMNS]),
    }
    states = onnx.helper.make_node("Gemm", [product.input[0], *constants], [f"{_MATRIX}.states"])
    model.graph.node.insert(list(model.graph.node).index(product), states)
    product.input[:] = [states.output[0], _MATRIX]
    for value in model.graph.value_info:
        if value.name in widened:
            value.type.tensor_type.shape.dim[1].dim_value = len(matrix)
    if filling is not None:
        for node in model.graph.node:
            node.input[:] = [filling.input[0] if name == filling.output[0] else name for name in node.input]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    model.graph.initializer.append(external_tensor(_MATRIX, matrix))
    return _pruned(model, {**graph.tensors, _MATRIX: matrix})


def _biases(model: "onnx.ModelProto", makers: "dict[str, onnx.NodeProto]", product: "onnx.NodeProto") -> Floats | None:
    """Return the biases that a product adds together with item_offsets; None if it adds something else."""
    import onnx

    added = makers.get(product.input[2]) if len(product.input) == 3 else None
    if added is None or added.op_type != "Add" or "item_offsets" not in added.input:
        return None
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in added.input]
    biases: Floats | None = onnx.numpy_helper.to_array(tensors[0]) if len(tensors) == 1 else None
    return biases


def _filling(model: "onnx.ModelProto", scores: str) -> "tuple[onnx.NodeProto | None, list[str]]":
    """Return the node that fills up scores to whole groups, None without one, and the names of the scores before it."""
    names = [scores]
    for node in model.graph.node:
        if node.input[:1] == names[-1:]:
            if node.op_type == "Concat":
                return node, names
            if node.op_type in {"ScatterElements", "ScatterND"}:
                names.append(node.output[0])
    return None, names


def _matrix(embeddings: Floats, biases: Floats, fills_groups: bool) -> Floats:
    """Return embeddings (items, size) with columns of biases and zeros, and perhaps rows of -inf up to whole groups."""
    n_items, size = embeddings.shape
    n_missing = -n_items % GROUP if fills_groups else 0
    matrix = np.zeros((n_items + n_missing, size + _N_COLUMNS), np.float32)
    matrix[:n_items, :size] = embeddings
    matrix[:n_items, size] = biases
    matrix[n_items:, size] = -np.inf
    return matrix


def _pruned(model: "onnx.ModelProto", tensors: Weights) -> Graph:
    """Return the graph of a protobuf without nodes and weights that none of its outputs needs."""
    needed = {output.name for output in model.graph.output}
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(_inputs(node))
    _drop(model.graph.node, lambda node: not needed.intersection(node.output))
    _drop(model.graph.initializer, lambda tensor: tensor.name not in needed)
    return Graph(model.SerializeToString(), {name: tensor for name, tensor in tensors.items() if name in needed})


def _inputs(node: "onnx.NodeProto") -> Iterator[str]:
    """Yield the names that a node reads, also in graphs of its attributes."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _inputs(inner)


def _drop(field: Any, is_dropped: Callable[[Any], bool]) -> None:
    """Delete some messages of a repeated field of a protobuf, in place: copies of weights would take memory."""
    for place in reversed(range(len(field))):
        if is_dropped(field[place]):
            del field[place]
