"""onnxruntime's CUDA execution provider implements each operator of the graph, so that none falls back to the CPU.

onnxruntime lists its kernels only if CUDA's libraries are installed. Therefore cuda_kernels.csv holds the kernels for
tensors that the graph may use, from opset 18 on. They are from docs/OperatorKernels.md of
github.com/microsoft/onnxruntime, "Operators implemented by CUDAExecutionProvider", at commit
001d12d2623fd411ce0f83d05abb5e82304a3389 of early 2026; kernels that were added later are missing, but for ReduceMax-20
(pull request 27755): the CUDA providers of onnxruntime-gpu 1.29.0 and 1.31.1 take that node of a wide graph.

Shapes may be computed on the CPU all the same: onnxruntime prefers that (onnxruntime/core/framework/
fallback_cpu_capability.cc).
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from batchrec.config import Objective
from batchrec.model.graph import Graph
from batchrec.model.ranker import CPU, CUDA, open_session
from tests.support.params import masked_is_slow
from tests.training.test_export import graph

Types = Mapping[str, set[str]]


@dataclass(frozen=True)
class Kernel:
    """A row of the table; types belong to a type constraint of ONNX's schema, or to a named parameter."""

    since: int
    until: int | None
    types: Types

    def implements(self, version: int, types: Types) -> bool:
        """Return whether the kernel runs this version, as VerifyVersion in onnxruntime's kernel_registry.cc does.

        A kernel without a last version runs only its first one: it was not checked for later ones.
        """
        in_range = self.until is not None and self.since <= version <= self.until
        return (self.since == version or in_range) and all(
            types.get(constraint, set()) <= allowed for constraint, allowed in self.types.items()
        )


@cache
def cuda_kernels() -> Mapping[str, list[Kernel]]:
    """The kernels of each operator."""
    kernels = defaultdict(list)
    with (Path(__file__).parent / "cuda_kernels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            constraints = (constraint.split(": ") for constraint in row["types"].split("; "))
            types = {name: set(allowed.split()) for name, allowed in constraints}
            kernels[row["operator"]].append(Kernel(int(row["since"]), int(row["until"] or 0) or None, types))
    return dict(kernels)


def element_types(model: onnx.ModelProto) -> dict[str, str]:
    """The element type of each tensor of a graph, as in tensor(float)."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    numbers = {value.name: value.type.tensor_type.elem_type for value in chain(inferred.value_info, inferred.output)}
    numbers |= {value.name: value.type.tensor_type.elem_type for value in inferred.input}
    numbers |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    names = {value: name.lower() for name, value in TensorProto.DataType.items()}
    return {tensor: names[number] for tensor, number in numbers.items()}


def types_of(node: onnx.NodeProto, schema: onnx.defs.OpSchema, tensors: Mapping[str, str]) -> Types:
    """The types with which a node uses its operator, by type constraint and by parameter."""
    types = defaultdict(set)
    for parameters, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for place, name in enumerate(names):
            parameter = parameters[min(place, len(parameters) - 1)]  # the last may be repeated
            if name:
                types[parameter.type_str].add(tensors[name])
                types[parameter.name].add(tensors[name])
    return types


def uncovered(model: onnx.ModelProto) -> set[str]:
    """The operators that CUDA does not implement: their version and the types of their inputs and outputs."""
    opset = next(opset.version for opset in model.opset_import if opset.domain in {"", "ai.onnx"})
    tensors = element_types(model)
    missing = set()
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        types = types_of(node, schema, tensors)
        kernels = cuda_kernels().get(node.op_type, []) if node.domain in {"", "ai.onnx"} else []
        if not any(kernel.implements(schema.since_version, types) for kernel in kernels):
            inputs, outputs = (" ".join(tensors[name] for name in names if name) for names in (node.input, node.output))
            missing.add(f"{node.op_type}-{schema.since_version}: {inputs} -> {outputs}")
    return missing


def as_exported(file: Path, _: Path) -> onnx.ModelProto:
    return onnx.load(file, load_external_data=False)


def as_assigned_to_devices(file: Path, folder: Path) -> onnx.ModelProto:
    """The graph after the optimizations that onnxruntime does before it assigns nodes to devices."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx", load_external_data=False)


def in_half_precision(file: Path, _: Path) -> onnx.ModelProto:
    model: onnx.ModelProto = convert_float_to_float16(onnx.load(file), keep_io_types=True)
    return model


@pytest.mark.parametrize("form", [as_exported, as_assigned_to_devices, in_half_precision])
@masked_is_slow
def test_cuda_implements_each_operator_of_the_graph(
    form: Callable[[Path, Path], onnx.ModelProto], objective: Objective, tmp_path: Path
) -> None:
    model = form(graph(objective), tmp_path)
    assert uncovered(model) == set()
    # The graph was really checked: it has the ranking operator, and half precision if requested.
    assert "TopK" in {node.op_type for node in model.graph.node}
    assert ("float16" in element_types(model).values()) == (form is in_half_precision)


def one_node(operator: str, opset: int, *types: int) -> onnx.ModelProto:
    """A graph of one operator with inputs and, last, an output of these types."""
    values = [helper.make_tensor_value_info(f"value{place}", number, ["n"]) for place, number in enumerate(types)]
    names = [value.name for value in values]
    nodes = [helper.make_node(operator, names[:-1], names[-1:])]
    model = helper.make_model(
        helper.make_graph(nodes, operator, values[:-1], values[-1:]), opset_imports=[helper.make_opsetid("", opset)]
    )
    onnx.checker.check_model(model)
    return model


def test_products_of_fp32_on_cuda_are_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[Any] = []

    def start(_: bytes, __: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
        asked_for.append(providers)
        return create(graph("causal"), providers=[CPU])

    create = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", start)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    open_session(Graph(b""), CUDA)
    open_session(Graph(b""), CPU)
    assert asked_for == [[(CUDA, {"use_tf32": "0"}), CPU], [CPU]]


FLOAT, INT32, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.BOOL


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one_node("Add", 20, INT32, INT32, INT32), set()),
        (one_node("Hardmax", 20, FLOAT, FLOAT), {"Hardmax-13: float -> float"}),
        (one_node("Clip", 20, FLOAT, FLOAT), set()),
        (one_node("Clip", 20, INT32, INT32), {"Clip-13: int32 -> int32"}),
        (one_node("Max", 20, *[TensorProto.INT16] * 4), {"Max-13: int16 int16 int16 -> int16"}),
        (one_node("Equal", 18, INT32, INT32, BOOL), set()),
        (one_node("Equal", 20, INT32, INT32, BOOL), {"Equal-19: int32 int32 -> bool"}),
        (one_node("IsNaN", 18, FLOAT, BOOL), set()),
        (one_node("IsNaN", 20, FLOAT, BOOL), set()),
    ],
    ids=lambda value: value.graph.name if isinstance(value, onnx.ModelProto) else "",
)
def test_an_operator_without_a_cuda_kernel_is_found(model: onnx.ModelProto, expected: set[str]) -> None:
    assert uncovered(model) == expected


def test_the_table_names_type_constraints_of_onnx() -> None:
    known = {name.lower() for name, _ in TensorProto.DataType.items()}
    for operator, kernels in cuda_kernels().items():
        for kernel in kernels:
            schema = onnx.defs.get_schema(operator, kernel.since)
            parameters = [*schema.inputs, *schema.outputs]
            names = {parameter.type_str for parameter in parameters} | {parameter.name for parameter in parameters}
            assert set(kernel.types) <= names, (operator, kernel.since)
            assert set(chain.from_iterable(kernel.types.values())) <= known, (operator, kernel.since)
