"""The ONNX graph of a model: its protobuf, its arguments, and the large tensors that it leaves in the weights file."""

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

# Type and sizes; None for a dynamic size.
Argument = tuple[str, tuple[int | None, ...]]


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


def graph_inputs(vocabulary_size: int) -> dict[str, Argument]:
    """Return the inputs of every graph by name, in the order of NextItemRanker.forward."""
    return {
        "tokens": ("INT32", (None, None)),
        "seen_rows": ("INT64", (None,)),
        "seen_items": ("INT64", (None,)),
        "habit_rows": ("INT64", (None,)),
        "habit_items": ("INT64", (None,)),
        "habit_scores": ("FLOAT", (None,)),
        "asked_rows": ("INT64", (None,)),
        "asked_items": ("INT64", (None,)),
        "item_offsets": ("FLOAT", (vocabulary_size,)),
        "top_k": ("INT64", ()),
    }


def graph_outputs(hidden_size: int) -> dict[str, Argument]:
    """Return the outputs of every graph by name, in the order of NextItemRanker.forward."""
    return {
        "scores": ("FLOAT", (None, None)),
        "items": ("INT32", (None, None)),
        "states": ("FLOAT", (None, hidden_size)),
        "asked_scores": ("FLOAT", (None,)),
    }


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
