"""Export the encoder as an ONNX graph that ranks items, and check the graph against torch."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from batchrec.errors import one_line
from batchrec.model.batching import Histories, scoring_tokens, seen_pairs
from batchrec.model.blend import Blend
from batchrec.model.directory import ENCODER, read_graph
from batchrec.model.graph import PER_ITEM, WEIGHTS, external_tensor, graph_inputs, graph_outputs, initializer_name
from batchrec.model.parts import weight_offsets
from batchrec.model.ranker import Ranker
from batchrec.system.disk import mapped
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder
from batchrec.training.ranking_graph import NextItemRanker

# Both compute in float32, but add in different orders.
_TOLERANCE = 1e-4
# Users that are checked, fewer beyond a million items.
_CHECKED_USERS, _CHECKED_SCORES = 64, 1 << 26
# The first opset with an attention operator, which is 5 % faster on a CPU than separate operators.
_OPSET = 23


def write_encoder(encoder: Encoder, folder: Path, blend: Blend | None = None) -> None:
    """Write the weights and the graph of an encoder and its blend into a model directory.

    Raises OSError if it cannot.
    """
    weights = encoder.state_dict()
    if blend is not None:
        weights |= {name: torch.from_numpy(array) for name, array in blend.arrays().items()}
    try:
        save_file(weights, folder / WEIGHTS)
    except SafetensorError as error:
        raise OSError(one_line(error)) from error
    export_encoder(encoder, folder, blend)
    # safetensors makes a file that only its owner may read.
    shutil.copymode(folder / ENCODER, folder / WEIGHTS)


def export_encoder(encoder: Encoder, folder: Path, blend: Blend | None = None) -> None:
    """Write the encoder as a NextItemRanker graph; rows, their length, pairs and top_k are dynamic.

    The folder has the weights file, to which the graph refers for the weights per item.
    """
    ranker = NextItemRanker(encoder, blend)
    # Trace with sizes other than 0 and 1, which torch.export would treat as constants.
    tokens = torch.full((2, 2), FIRST_ITEM, dtype=torch.int32)
    pairs = [torch.zeros(n, dtype=torch.int64) for n in (3, 3, 4, 4, 5, 5)]
    habit_scores = torch.zeros(4)
    free = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings(), _quiet("torch.onnx"), _quiet("onnxscript"), _quiet("onnx_ir"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ranker,
            (tokens, *pairs[:4], habit_scores, *pairs[4:], torch.zeros_like(encoder.item_biases), torch.tensor(1)),
            dynamo=True,
            opset_version=_OPSET,
            dynamic_shapes=({0: free, 1: free}, *[{0: free}] * 7, None, None),
            input_names=list(graph_inputs(encoder.item_biases.numel())),
            output_names=list(graph_outputs(encoder.shape.hidden_size)),
            verbose=False,
        )
    assert program is not None  # noqa: S101 - None only if exported straight to a file
    onnx.save(_without_weights(program, ranker, folder), folder / ENCODER)


def _without_weights(program: Any, ranker: NextItemRanker, folder: Path) -> onnx.ModelProto:
    """Return the protobuf of an exported graph that refers to the weights file for the weights per item."""
    offsets = weight_offsets(mapped(folder / WEIGHTS))
    arrays = {name: tensor.numpy() for name, tensor in ranker.state_dict().items()}
    references = []
    for name, full_name in zip(PER_ITEM, map(initializer_name, PER_ITEM), strict=True):
        # Taken out before the graph becomes a protobuf, which holds 2 GiB at most.
        if program.model.graph.initializers.pop(full_name, None) is not None:
            references.append(external_tensor(full_name, arrays[full_name], offsets[name]))
    model: onnx.ModelProto = program.model_proto
    _strip_metadata(model)
    model.graph.initializer.extend(references)
    return model


def _strip_metadata(model: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces, whose paths make the file depend on where batchrec is installed."""
    graphs = [model.graph, *model.functions]
    described = [model, *graphs, *(node for graph in graphs for node in graph.node)]
    described += [value for graph in graphs for value in graph.value_info]
    described += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in described:
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Keep the exporter's messages about its rewriting out of the job's log."""
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)


def check_parity(encoder: Encoder, folder: Path, histories: Histories, blend: Blend | None = None) -> float:
    """Compare the graph in a model directory with torch on real histories and return the largest difference of a score.

    Raises RuntimeError if they differ by more than rounding: that is a bug.
    """
    n_users = min(_CHECKED_USERS, max(1, _CHECKED_SCORES // encoder.item_biases.numel()))
    users = np.arange(min(len(histories), n_users))
    tokens, seen = scoring_tokens(histories, users, encoder.shape), seen_pairs(histories, users)
    top_k = min(100, encoder.item_biases.numel() - FIRST_ITEM)
    ranking = Ranker(read_graph(folder), "cpu").rank(tokens, seen, top_k)
    with torch.inference_mode():
        scores, _ = NextItemRanker(encoder, blend).score(
            torch.from_numpy(tokens), torch.zeros_like(encoder.item_biases)
        )
        scores = scores.clone()
        scores[torch.from_numpy(seen.rows), torch.from_numpy(seen.items)] = -torch.inf
    best = torch.topk(scores, top_k).values.numpy()
    same_items = scores.gather(1, torch.from_numpy(ranking.items).long()).numpy()
    is_item = best != -np.inf
    if ((ranking.scores != -np.inf) != is_item).any():
        raise RuntimeError("the ONNX graph and torch mask different items")
    difference = max(
        float(np.abs(ranking.scores[is_item] - expected[is_item]).max(initial=0.0)) for expected in (best, same_items)
    )
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(best[is_item]).max(initial=0.0))):
        raise RuntimeError(f"the ONNX graph and torch differ by {difference}")
    return difference
