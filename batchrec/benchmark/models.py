"""Untrained models for timing: scoring with them takes as long as with a trained model."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from batchrec.config import EncoderShape, TrainingConfig
from batchrec.model.directory import ENCODER, load_model, replacing_model, write_manifest
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
)
from batchrec.model.parts import weight_offsets, weight_views
from batchrec.system.disk import mapped
from batchrec.training.corpus import read_corpus
from batchrec.training.encoder import Encoder
from batchrec.training.export import write_encoder

_EMBEDDINGS = initializer_name("item_embeddings.weight")


def write_untrained(sequences: Path, shape: EncoderShape, out: Path) -> int:
    """Write a model directory with the items of a sequences table and untrained weights; return their number."""
    vocabulary = read_corpus(sequences, seed=0).vocabulary
    torch.manual_seed(0)
    encoder = Encoder(vocabulary.size, shape).eval()
    with replacing_model(out) as folder:
        write_encoder(encoder, folder)
        write_manifest(folder, vocabulary, shape, TrainingConfig(), {})
    return len(vocabulary)


def write_instant(model: Path, out: Path) -> None:
    """Write a model directory whose graph ranks in no time: the items after a user's first one in the vocabulary.

    All the work around the model remains, and lists differ between users as a model's do.
    """
    loaded = load_model(model)
    with replacing_model(out) as folder:
        (folder / WEIGHTS).write_bytes(loaded.weights)
        write_instant_graph(folder)
        sizes = loaded.manifest.blend_sizes
        write_manifest(folder, loaded.vocabulary, loaded.manifest.shape, TrainingConfig(), {}, sizes)


def write_instant_graph(folder: Path) -> None:
    """Write a graph that has the weights of the folder's weights file but does not rank by them."""
    contents = mapped(folder / WEIGHTS)
    weights, offsets = weight_views(contents), weight_offsets(contents)
    vocabulary_size, hidden_size = weights["item_embeddings.weight"].shape
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in _numbers(vocabulary_size)]
    # The only external data: onnxruntime takes none that the graph does not use.
    constants.append(external_tensor(_EMBEDDINGS, weights["item_embeddings.weight"], offsets["item_embeddings.weight"]))
    for name in sorted(weights.keys() - {*PER_ITEM}):
        held = biases_in_graph(weights[name]) if name in BIASES else weights[name]
        constants.append(numpy_helper.from_array(held, initializer_name(name)))
    inputs, outputs = _values(graph_inputs(vocabulary_size)), _values(graph_outputs(hidden_size))
    graph = helper.make_graph(_nodes(), "instant", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / ENCODER)


def _numbers(vocabulary_size: int) -> list[tuple[str, object]]:
    return [
        ("zero", 0),
        ("one", 1),
        ("two", 2),
        ("n_items", vocabulary_size - 2),
        ("zero_places", [0]),
        ("one_place", [1]),
        ("second_axis", [1]),
    ]


def _nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Slice", ["tokens", "zero_places", "one_place", "second_axis"], ["first_tokens"]),
        helper.make_node("Cast", ["first_tokens"], ["firsts"], to=TensorProto.INT64),
        helper.make_node("Range", ["zero", "top_k", "one"], ["places"]),
        helper.make_node("Add", ["firsts", "places"], ["following"]),
        # Items have the indexes from 2 on.
        helper.make_node("Mod", ["following", "n_items"], ["wrapped"]),
        helper.make_node("Add", ["wrapped", "two"], ["indexes"]),
        helper.make_node("Cast", ["indexes"], ["items"], to=TensorProto.INT32),
        helper.make_node("Sub", ["firsts", "following"], ["falling"]),
        helper.make_node("Cast", ["falling"], ["scores"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["firsts", "second_axis"], ["first_items"]),
        helper.make_node("Gather", [_EMBEDDINGS, "first_items"], ["states"]),
        helper.make_node("Gather", ["states", "asked_rows"], ["asked_states"]),
        helper.make_node("Gather", [_EMBEDDINGS, "asked_items"], ["asked_embeddings"]),
        helper.make_node("Mul", ["asked_states", "asked_embeddings"], ["asked_products"]),
        helper.make_node("ReduceSum", ["asked_products", "second_axis"], ["asked_scores"], keepdims=0),
    ]


def _values(arguments: dict[str, Argument]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), sizes)
        for name, (kind, sizes) in arguments.items()
    ]
