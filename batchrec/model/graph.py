"""The ONNX graph of a model: its protobuf, and the large tensors that it leaves in the weights file."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchrec.arrays import Floats
from batchrec.model.blend import PREFIX as BLEND_PREFIX
from batchrec.model.parts import Weights, weight_views
from batchrec.tables.schemas import FIRST_ITEM

if TYPE_CHECKING:
    import onnx

WEIGHTS = "weights.safetensors"
# The weights with a row per item, which would soon exceed a protobuf's 2 GiB.
PER_ITEM = ("item_embeddings.weight", BLEND_PREFIX + "neighbours", BLEND_PREFIX + "similarities")
# These are in the graph too, because there they differ.
BIASES = ("item_biases", BLEND_PREFIX + "biases")


@dataclass(frozen=True)
class Graph:
    """An ONNX graph. tensors: those that its protobuf calls external data, by their names in the graph."""

    proto: bytes
    tensors: Weights = field(default_factory=dict)


def graph_of(encoder: bytes, weights: bytes | memoryview) -> Graph:
    """Return the graph of a model with views of its tensors; encoder, weights: the contents of its two files."""
    import onnx

    initializers = onnx.ModelProto.FromString(encoder).graph.initializer
    names = {tensor.name for tensor in initializers if is_external(tensor)}
    views = {initializer_name(name): view for name, view in weight_views(weights).items()}
    return Graph(encoder, {name: view for name, view in views.items() if name in names})


def initializer_name(weight: str) -> str:
    """Return the name that a weight of the weights file has in the graph."""
    return weight if weight.startswith(BLEND_PREFIX) else f"encoder.{weight}"


def biases_in_graph(biases: Floats) -> Floats:
    """Return biases as the graph has them: those of PAD and MASK, which are never recommended, are -inf."""
    return np.concatenate([np.full(FIRST_ITEM, -np.inf, np.float32), biases[FIRST_ITEM:]])


def is_external(tensor: "onnx.TensorProto") -> bool:
    """Return whether a tensor names a file that holds its values."""
    import onnx

    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data))


def external_tensor(name: str, array: NDArray[Any], offset: int = 0) -> "onnx.TensorProto":
    """Return a tensor of a graph with the values of an array that begins at `offset` of the weights file."""
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
