"""Convert the model's fp32 graph to fp16 or int8 when it is opened."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from batchrec.config import ScoringPrecision

if TYPE_CHECKING:
    import onnx


def at_precision(encoder: bytes, precision: ScoringPrecision) -> bytes:
    """Convert the weights and arithmetic of an fp32 graph to `precision`; inputs and outputs keep their types."""
    if precision == "fp32":
        return encoder
    return _to_fp16(encoder) if precision == "fp16" else _to_int8(encoder)


def _to_fp16(encoder: bytes) -> bytes:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load_model_from_string(encoder)
    # onnxruntime's CPU cannot add fp16 numbers into a tensor: the neighbours and habits of a blend.
    adding = [node.name for node in model.graph.node if any(part.name == "reduction" for part in node.attribute)]
    converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=adding)
    return bytes(converted.SerializeToString())


def _to_int8(encoder: bytes) -> bytes:
    """Quantize weight matrices, with a scale per column, and the states that they are multiplied with.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
    (CVPR 2018); states are scaled dynamically.

    Weights take 7 of the 8 bits. Processors without VNNI instructions add products of an unsigned and a signed byte in
    pairs of 16 bits (vpmaddubsw). These hold 2 * 255 * 64 but not 2 * 255 * 127: with 8 bits they would saturate.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load_model_from_string(encoder)
    _untie_weights(model)
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
        return file.read_bytes()


def _untie_weights(model: "onnx.ModelProto") -> None:
    """Copy the weights for each product: onnxruntime transposes them in place, and lookups share them."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Gemm" and node.input[1] in weights:
            own = model.graph.initializer.add()
            own.CopyFrom(weights[node.input[1]])
            own.name = node.input[1] = f"{own.name}.{node.name}"
