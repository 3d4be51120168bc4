"""Check that the ONNX graph of a model has the model's weights and refers to no other file than theirs."""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchrec.errors import one_line
from batchrec.model.blend import PREFIX as BLEND_PREFIX
from batchrec.model.graph import (
    BIASES,
    PER_ITEM,
    WEIGHTS,
    Argument,
    biases_in_graph,
    external_tensor,
    graph_inputs,
    graph_outputs,
    initializer_name,
    is_external,
)
from batchrec.model.parts import MisfitError, Weights

if TYPE_CHECKING:
    import onnx

# The types that training writes.
_VALUE_BYTES = {"FLOAT": 4, "DOUBLE": 8, "INT32": 4, "INT64": 8, "BOOL": 1}
# The weights behind the states, which a graph lacks if the scale of the encoder is 0.
_OF_STATES = ("item_embeddings.weight", "position_embeddings.weight")


def check_graph(encoder: bytes, weights: Weights, offsets: Mapping[str, int]) -> None:
    """Raise MisfitError unless a graph has the arguments of the contract and the weights of its encoder.

    offsets: where each weight begins in the weights file, the only file that the graph may refer to.
    The graph is parsed here, before onnxruntime sees it, because onnxruntime opens files that any tensor of the graph,
    its subgraphs and functions names as external data.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(encoder)
    except DecodeError as error:
        raise MisfitError(f"not an ONNX file: {one_line(error)}") from error
    references = [external_tensor(initializer_name(n), weights[n], offsets[n]) for n in PER_ITEM if n in weights]
    outside = [tensor for tensor in model.graph.initializer if tensor in references]
    if len(outside) > len(references):
        # Each removal moves all that follow, which takes hours for millions of them.
        raise MisfitError("a weight with a row per item occurs twice")
    for tensor in outside:
        model.graph.initializer.remove(tensor)
    for tensor in _tensors(model):
        _check_tensor(tensor)
    vocabulary_size, hidden_size = weights["item_embeddings.weight"].shape
    _check_arguments("input", model.graph.input, graph_inputs(vocabulary_size))
    _check_arguments("output", model.graph.output, graph_outputs(hidden_size))
    _check_weights([*outside, *model.graph.initializer], weights)


def _tensors(message: Any) -> "Iterator[onnx.TensorProto]":
    """Yield the tensors in a protobuf message, at any depth. Raises MisfitError for a sparse one and invalid text."""
    import onnx

    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            # protobuf returns text that is not UTF-8 as bytes.
            if any(isinstance(text, bytes) for text in ([value] if isinstance(value, str | bytes) else value)):
                raise MisfitError(f"its {field.name} is not UTF-8")
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                if isinstance(part, onnx.SparseTensorProto):
                    # It may claim any amount of memory, and training writes none.
                    raise MisfitError(f"tensor {part.values.name!r:.60} is sparse")
                if isinstance(part, onnx.TensorProto):
                    yield part
                else:
                    yield from _tensors(part)


def _check_tensor(tensor: "onnx.TensorProto") -> None:
    """Raise MisfitError unless a tensor holds as many values as its shape says, all of them in this file."""
    if is_external(tensor):
        raise MisfitError(f"tensor {tensor.name!r:.60} is external data; expected only those of {WEIGHTS}, as they are")
    n_values = prod(tensor.dims)
    kind = _spell_type(tensor.data_type)
    if kind not in _VALUE_BYTES or min(tensor.dims, default=0) < 0:
        raise MisfitError(f"tensor {tensor.name!r:.60} is {kind} {list(tensor.dims)!s:.60}")
    listed = sum(map(len, (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data)))
    n_held = listed + len(tensor.raw_data) / _VALUE_BYTES[kind]
    if n_held != n_values:
        raise MisfitError(f"tensor {tensor.name!r:.60} holds {n_held:g} values; expected {n_values}")


def _spell_type(number: int) -> str:
    import onnx

    names: dict[int, str] = dict(zip(onnx.TensorProto.DataType.values(), onnx.TensorProto.DataType.keys(), strict=True))
    return names.get(number, str(number))


def _check_arguments(kind: str, values: "Iterable[onnx.ValueInfoProto]", expected: dict[str, Argument]) -> None:
    arguments = [(value.name, _argument(value)) for value in values]
    names = [name for name, _ in arguments]
    if sorted(names) != sorted(expected):
        raise MisfitError(f"its {kind}s are {', '.join(names):.200}; expected {', '.join(expected)}")
    for name, argument in arguments:
        if argument != expected[name]:
            raise MisfitError(f"{kind} {name} is {_spell(argument)}; expected {_spell(expected[name])}")


def _argument(value: "onnx.ValueInfoProto") -> Argument:
    tensor = value.type.tensor_type
    sizes = (dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in tensor.shape.dim)
    return (_spell_type(tensor.elem_type) if tensor.HasField("shape") else "without a shape"), tuple(sizes)


def _spell(argument: Argument) -> str:
    kind, sizes = argument
    return f"{kind} ({', '.join('any' if size is None else str(size) for size in sizes)})"


def _check_weights(tensors: "Iterable[onnx.TensorProto]", weights: Weights) -> None:
    """Raise MisfitError unless the graph's weights are those of the weights file."""
    biases = [name for name in BIASES if name in weights][-1]
    has_states = weights.get(BLEND_PREFIX + "scale", np.ones(1))[0] != 0
    needed = {biases, *(_OF_STATES if has_states else ())}
    by_name: dict[str, onnx.TensorProto] = {}
    for initializer in tensors:
        if initializer.name in by_name:
            raise MisfitError(f"weight {initializer.name!r:.60} occurs twice")
        by_name[initializer.name] = initializer
    for name, expected in weights.items():
        tensor = by_name.get(initializer_name(name))
        if tensor is not None:
            _check_weight(tensor, name, expected)
        elif name in needed:
            raise MisfitError(f"lacks the weight {initializer_name(name)}")


def _check_weight(tensor: "onnx.TensorProto", name: str, expected: NDArray[Any]) -> None:
    """Raise MisfitError unless a weight equals the file's bit for bit or, with a row per item, refers to the file."""
    import onnx

    if name in PER_ITEM:
        if not is_external(tensor):
            raise MisfitError(f"weight {tensor.name} is in the graph; expected a reference to {WEIGHTS}")
        return
    if tensor.data_type != onnx.TensorProto.FLOAT or tuple(tensor.dims) != expected.shape:
        raise MisfitError(
            f"weight {tensor.name} is {tuple(tensor.dims)!s:.60}; expected {expected.dtype} {expected.shape}"
        )
    bits = biases_in_graph(expected) if name in BIASES else expected.ravel()
    raw = tensor.raw_data
    if len(raw) != bits.nbytes or not np.array_equal(np.frombuffer(raw, np.uint32), bits.view(np.uint32)):
        raise MisfitError(f"weight {tensor.name} differs from the weights file")
