"""Check the parts of a model directory against each other: the shape, the weights and the vocabulary."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import prod
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.config import EncoderShape, Objective
from batchrec.errors import one_line
from batchrec.model.blend import ARRAYS, PREFIX, Blend, BlendSizes
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import FIRST_ITEM, items_schema
from batchrec.tables.sealed_parquet import parquet_of

Weights = Mapping[str, NDArray[Any]]

_NEIGHBOURS = PREFIX + "neighbours"
# The limit of the safetensors format.
_MAX_HEADER_BYTES = 100_000_000
_DTYPES = {"F32": np.float32, "I32": np.int32}


class MisfitError(ValueError):
    """A part of a model does not fit the others; the message says what was found and what was expected."""


def check_shape(shape: EncoderShape) -> None:
    """Raise MisfitError unless every value of a shape is valid."""
    sizes = {name: size for name, size in asdict(shape).items() if name not in ("objective", "dropout")}
    for name, size in sizes.items():
        if not _is_size(size):
            raise MisfitError(f"{name} is {size!r:.40}; expected an integer, 1 or more")
    if shape.objective not in get_args(Objective):
        raise MisfitError(f"objective is {shape.objective!r:.40}; expected one of {', '.join(get_args(Objective))}")
    if not is_number(shape.dropout) or not 0 <= shape.dropout < 1:
        raise MisfitError(f"dropout is {shape.dropout!r:.40}; expected a number from 0, below 1")
    if shape.hidden_size % shape.n_heads:
        raise MisfitError(f"n_heads is {shape.n_heads}; expected a divisor of hidden_size, {shape.hidden_size}")


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def weight_shapes(vocabulary_size: int, shape: EncoderShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of an encoder, by its name in training.encoder.Encoder."""
    size = shape.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "item_embeddings.weight": (vocabulary_size, size),
        "position_embeddings.weight": (shape.max_len, size),
        "item_biases": (vocabulary_size,),
        "norm.weight": (size,),
        "norm.bias": (size,),
    }
    linear = {"query": (size, size), "key_value": (2 * size, size), "attention_output": (size, size)}
    linear |= {"feed_forward.0": (4 * size, size), "feed_forward.2": (size, 4 * size)}
    for block in (f"blocks.{number}" for number in range(shape.n_layers)):
        for name in ("attention_norm", "feed_forward_norm"):
            shapes |= {f"{block}.{name}.weight": (size,), f"{block}.{name}.bias": (size,)}
        for name, (n_out, n_in) in linear.items():
            shapes |= {f"{block}.{name}.weight": (n_out, n_in), f"{block}.{name}.bias": (n_out,)}
    return shapes


def check_blend_sizes(sizes: BlendSizes) -> None:
    """Raise MisfitError unless both sizes of a blend are valid."""
    for name, size in asdict(sizes).items():
        if type(size) is not int or size < 0:
            raise MisfitError(f"{name} is {size!r:.40}; expected an integer, 0 or more")


def read_weights(
    contents: bytes, vocabulary_size: int, shape: EncoderShape, blend_sizes: BlendSizes | None = None
) -> Weights:
    """Return views of the weights in a safetensors file: those of the encoder, and the arrays of the blend, if any.

    Raises MisfitError unless it is a safetensors file with the weights of an encoder of this shape and a blend of these
    sizes, all of them finite, and the neighbours indexes of the vocabulary.
    """
    header, begin = _read_header(contents)
    data = memoryview(contents)[begin:]
    # Checked before that many shapes are made.
    if shape.n_layers > len(header):
        raise MisfitError(f"holds {len(header)} weights; expected those of {shape.n_layers} layers")
    expected = weight_shapes(vocabulary_size, shape)
    if blend_sizes is not None:
        expected |= blend_sizes.shapes(vocabulary_size)
    if header.keys() != expected.keys():
        strange = min(header.keys() ^ expected.keys())
        raise MisfitError(f"{'lacks the' if strange in expected else 'has an unexpected'} weight {strange!r:.60}")
    weights, spans = {}, []
    for name, sizes in expected.items():
        dtype = "I32" if name == _NEIGHBOURS else "F32"
        start, end = _span(name, header[name], sizes, dtype)
        spans.append((start, end))
        if end > len(data):
            raise MisfitError(f"weight {name} ends at byte {end} of {len(data)}")
        weights[name] = np.frombuffer(data[start:end], _DTYPES[dtype]).reshape(sizes)
        # A sum of finite float32 numbers is a finite float64.
        with np.errstate(invalid="ignore"):
            total = weights[name].sum(dtype=np.float64)
        if not np.isfinite(total):
            raise MisfitError(f"weight {name} holds values that are not finite")
    spans.sort()
    if [start for start, _ in spans] + [len(data)] != [0] + [end for _, end in spans]:
        raise MisfitError("the weights do not fill the file")
    if begin % 8:
        # onnxruntime computes with them where they are.
        raise MisfitError(f"the weights begin at byte {begin}; expected a multiple of 8")
    neighbours = weights.get(_NEIGHBOURS, np.empty(0))
    if neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < vocabulary_size:
        raise MisfitError("a neighbour is not an index of the vocabulary")
    return weights


def weight_views(contents: bytes | memoryview) -> Weights:
    """Return views of the weights in a safetensors file that `read_weights` has checked."""
    header, begin = _read_header(contents)
    views = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = memoryview(contents)[begin + start : begin + end]
        views[name] = np.frombuffer(values, _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return views


def weight_offsets(contents: bytes | memoryview) -> dict[str, int]:
    """Return the byte of a safetensors file at which each weight begins. Raises MisfitError for another file."""
    header, begin = _read_header(contents)
    return {name: begin + entry["data_offsets"][0] for name, entry in header.items()}


def blend_of(weights: Weights) -> Blend | None:
    """Return the blend among the weights of a model, None without one."""
    if _NEIGHBOURS not in weights:
        return None
    return Blend(**{name: weights[PREFIX + name] for name in ARRAYS})


def _read_header(contents: bytes | memoryview) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file: the entry of each weight, and the byte at which the first one begins."""
    n_bytes = int.from_bytes(contents[:8], "little")
    text = bytes(contents[8 : 8 + n_bytes]) if n_bytes <= _MAX_HEADER_BYTES else b""
    if not 2 <= n_bytes == len(text):
        raise MisfitError("not a safetensors file")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MisfitError(f"not a safetensors file: {one_line(error)}") from error
    if not isinstance(header, dict):
        raise MisfitError("not a safetensors file: its header is not an object")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + n_bytes


def _span(name: str, entry: object, sizes: tuple[int, ...], dtype: str) -> tuple[int, int]:
    """Return where the bytes of a weight start and end. Raises MisfitError unless it has this dtype and these sizes."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise MisfitError(f"weight {name} is {entry!r:.60}; expected dtype, shape and data_offsets")
    # In Python 8.0 and true equal numbers too, but no array has such sizes.
    if entry["dtype"] != dtype or repr(entry["shape"]) != repr(list(sizes)):
        spelled = f"{entry['dtype']!r:.20} {entry['shape']!r:.60}"
        raise MisfitError(
            f"weight {name} is {spelled}; expected {dtype!r} {list(sizes)}, by the manifest's shape and items"
        )
    offsets = entry["data_offsets"]
    are_offsets = isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)
    if not are_offsets or offsets[0] < 0 or offsets[1] - offsets[0] != 4 * prod(sizes):
        raise MisfitError(f"weight {name} is at {offsets!r:.60}; expected {4 * prod(sizes)} bytes")
    return offsets[0], offsets[1]


def read_vocabulary(contents: bytes, n_items: int) -> Vocabulary:
    """Read the items table of a model.

    Raises MisfitError unless it is a Parquet file with one row for each of `n_items` items, by the contract.
    """
    try:
        file = parquet_of(pa.BufferReader(contents))
        if file.metadata.num_rows != n_items:
            raise MisfitError(f"holds {file.metadata.num_rows} items; expected {n_items}, by the manifest")
        schema = file.schema_arrow
        is_weighed = "weight" in schema.names
        if not any(schema.equals(items_schema(type_, is_weighed=is_weighed)) for type_ in (pa.int64(), pa.string())):
            columns = ", ".join(f"{field.name} {field.type}" for field in schema)
            raise MisfitError(
                f"its columns are {columns:.200}; expected item_id int64 or string, item_index int32, n_events int64 "
                "and optionally weight double, without nulls"
            )
        items = file.read().combine_chunks()
        items.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise MisfitError(f"not a readable Parquet file: {one_line(error)}") from error
    item_ids, indexes, n_events, *weights = (column.chunk(0) for column in items.columns)
    if any(column.null_count for column in items.columns):
        raise MisfitError("has nulls; expected none")
    if not np.array_equal(indexes.to_numpy(), np.arange(FIRST_ITEM, FIRST_ITEM + n_items)):
        raise MisfitError(f"the indexes do not run from {FIRST_ITEM} to {FIRST_ITEM + n_items - 1}")
    if pc.count_distinct(item_ids).as_py() != n_items:
        often = max(pc.value_counts(item_ids).to_pylist(), key=lambda counted: counted["counts"])
        raise MisfitError(f"item {often['values']!r:.60} has {often['counts']} rows; expected one")
    if pc.min(n_events).as_py() < 0:
        raise MisfitError(f"an item has {pc.min(n_events)} events; expected 0 or more")
    if weights and not pc.all(pc.and_(pc.is_finite(weights[0]), pc.greater_equal(weights[0], 0))).as_py():
        raise MisfitError("an item has a weight that is not a finite number, 0 or more")
    return Vocabulary(item_ids, n_events.to_numpy(), weights[0].to_numpy() if weights else None)
