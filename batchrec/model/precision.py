"""Convert the model's fp32 graph to fp16 or int8 when it is opened.

onnxruntime's converters see one row in the place of a tensor with a row per item, and its values are converted here, in
the same way: a protobuf cannot hold the tensors of millions of items, and onnxruntime quantizes one item at a time.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchrec.arrays import Floats
from batchrec.config import ScoringPrecision
from batchrec.model.graph import Graph, external_tensor
from batchrec.model.parts import Weights

if TYPE_CHECKING:
    import onnx

# Items that are converted at a time, so that what is computed on the way takes little memory.
_ITEMS = 1 << 16
_LEAST_HALF, _GREATEST_HALF = np.finfo(np.float16).smallest_subnormal, np.finfo(np.float16).max


def at_precision(graph: Graph, precision: ScoringPrecision) -> Graph:
    """Convert the weights and arithmetic of an fp32 graph to `precision`; inputs and outputs keep their types."""
    if precision == "fp32":
        return graph
    return _to_fp16(graph) if precision == "fp16" else _to_int8(graph)


def _to_fp16(graph: Graph) -> Graph:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = _with_placeholders(graph)
    # onnxruntime's CPU cannot add fp16 numbers into a tensor: the neighbours and habits of a blend.
    adding = [node.name for node in model.graph.node if any(part.name == "reduction" for part in node.attribute)]
    # The export has already inferred the shapes, and of one row others would follow.
    converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=adding, disable_shape_infer=True)
    halved = {weight.name for weight in converted.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16}
    tensors = {name: _halves(tensor) if name in halved else tensor for name, tensor in graph.tensors.items()}
    return _refer(converted, tensors)


def _halves(tensor: Floats) -> NDArray[np.float16]:
    """Round to fp16, but neither to 0 nor to infinity: as onnxruntime's convert_np_to_float16, ten times as fast."""
    halves = np.empty(tensor.shape, np.float16)
    for first in range(0, len(tensor), _ITEMS):
        values, rounded = tensor[first : first + _ITEMS], halves[first : first + _ITEMS]
        with np.errstate(over="ignore"):
            rounded[:] = values
        sizes = np.abs(values)
        for limit, is_beyond in (
            (_LEAST_HALF, (sizes > 0) & (sizes < _LEAST_HALF)),
            (_GREATEST_HALF, (sizes > _GREATEST_HALF) & (sizes < np.inf)),
        ):
            rounded[is_beyond] = np.copysign(limit, values[is_beyond])
    return halves


def _to_int8(graph: Graph) -> Graph:
    """Quantize weight matrices, with a scale per column, and the states that they are multiplied with.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
    (CVPR 2018); states are scaled dynamically.

    Weights take 7 of the 8 bits. Processors without VNNI instructions add products of an unsigned and a signed byte in
    pairs of 16 bits (vpmaddubsw). These hold 2 * 255 * 64 but not 2 * 255 * 127: with 8 bits they would saturate.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = _with_placeholders(graph)
    copies = _untie_weights(model)
    # onnxruntime expects shapes to be inferred first; the export has already done that.
    add_pre_process_metadata(model)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            file,
            op_types_to_quantize=["Gemm", "MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        quantized = onnx.load(file)
    tensors = dict(graph.tensors)
    for copy, name in copies.items():
        if name in graph.tensors:
            tensors |= _quantized_columns(copy, graph.tensors[name])
    return _refer(quantized, tensors)


def _quantized_columns(name: str, matrix: Floats) -> dict[str, NDArray[Any]]:
    """Transpose and quantize a matrix (items, size) by quantize_dynamic's rule and names, with a scale per item."""
    columns, scales = np.empty(matrix.shape[::-1], np.int8), np.empty(len(matrix), np.float32)
    for first in range(0, len(matrix), _ITEMS):
        items = slice(first, first + _ITEMS)
        exact = np.abs(matrix[items]).max(axis=1).astype(np.float64) / 64
        scales[items] = np.where(exact < np.finfo(np.float32).tiny, 1, exact)
        columns[:, items] = np.rint(matrix[items] / scales[items, None]).T
    zeros = np.zeros(len(matrix), np.int8)
    return {f"{name}_quantized": columns, f"{name}_scale": scales, f"{name}_zero_point": zeros}


def _untie_weights(model: "onnx.ModelProto") -> dict[str, str]:
    """Copy the weights for each product: onnxruntime transposes them in place, and lookups share them.

    Returns the name of each copy's weight.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    copies = {}
    for node in model.graph.node:
        if node.op_type == "Gemm" and node.input[1] in weights:
            own = model.graph.initializer.add()
            own.CopyFrom(weights[node.input[1]])
            own.name = f"{own.name}.{node.name}"
            copies[own.name] = node.input[1]
            node.input[1] = own.name
    return copies


def _with_placeholders(graph: Graph) -> "onnx.ModelProto":
    """Return the graph with the first row of each external tensor in its place."""
    import onnx

    model: onnx.ModelProto = onnx.ModelProto.FromString(graph.proto)
    _put(model, {name: onnx.numpy_helper.from_array(tensor[:1], name) for name, tensor in graph.tensors.items()})
    return model


def _refer(model: "onnx.ModelProto", tensors: Weights) -> Graph:
    """Make tensors external data of a graph."""
    _put(model, {name: external_tensor(name, tensor) for name, tensor in tensors.items()})
    return Graph(model.SerializeToString(), tensors)


def _put(model: "onnx.ModelProto", initializers: "dict[str, onnx.TensorProto]") -> None:
    """Replace the initializers of a graph that have these names."""
    for tensor in model.graph.initializer:
        if tensor.name in initializers:
            tensor.CopyFrom(initializers[tensor.name])
