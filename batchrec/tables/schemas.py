"""The contracts between the jobs: Arrow schemas of their tables, with the version in the metadata."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from batchrec.errors import InputError
from batchrec.system.json_text import to_json

CONTRACT_VERSION = 1
# Version 2 adds also_seen. A table without this column is read as if the lists were empty. Version 3 adds the columns
# below; a table without them has version 2, and is read as if every event weighed 1 and counted as seen.
SEQUENCES_VERSION = 2
WEIGHED_SEQUENCES_VERSION = 3
WEIGHED_COLUMNS = ("weights", "is_seen", "disliked")
# Version 2 of the items adds weight.
WEIGHED_ITEMS_VERSION = 2
MODEL_VERSION = 6
# Version 2 adds question.
EVALUATION_VERSION = 2

# Name of a contract -> the versions that are read.
CONTRACTS = {
    "sequences": (1, SEQUENCES_VERSION, WEIGHED_SEQUENCES_VERSION),
    "items": (CONTRACT_VERSION, WEIGHED_ITEMS_VERSION),
    "recs": (CONTRACT_VERSION,),
    "recs-shard": (CONTRACT_VERSION,),
    "similar": (CONTRACT_VERSION,),
    "vectors": (CONTRACT_VERSION,),
    "evaluation": (EVALUATION_VERSION,),
}

# Timestamps of all tables are Unix seconds.
DAY_S = 86_400

# Indexes of the vocabulary that are not items, and the first index of an item.
PAD = 0
MASK = 1
FIRST_ITEM = 2

# The origins of a row, and the code of each in arrays.
SOURCES = ("model", "popular_segment", "popular", "popular_all_time", "pinned")
BY_MODEL, BY_SEGMENT, BY_RECENT, BY_ALL_TIME, BY_PIN = range(len(SOURCES))
# The parts of a blend that may carry an item of a list, and the code for none of them.
PARTS = ("encoder", "neighbours", "popularity", "habit")
NOT_CARRIED = -1
# The columns of recs with --explain.
REASON_COLUMNS = ("carried_by", "because_items", "because_weights")
# The origins of a row of similar items.
SIMILAR_SOURCES = ("vectors", "co-occurrence")


def id_type(type_: pa.DataType, column: str, where: str) -> pa.DataType:
    """Return the contract's type for an id column: int64 or string. Raises InputError for any other type."""
    if pa.types.is_integer(type_):
        return pa.int64()
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    raise InputError(f"{where}: column {column!r} is {type_}; expected int64 or string")


def is_list(type_: pa.DataType) -> bool:
    """Return whether a column of this type holds lists."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_))


def _with_contract(fields: list[pa.Field], name: str, version: int = CONTRACT_VERSION) -> pa.Schema:
    return pa.schema(fields, {"batchrec.contract": f"{name}/{version}"})


def _with_made_by(schema: pa.Schema, made_by: dict[str, Any]) -> pa.Schema:
    return schema.with_metadata({**schema.metadata, "batchrec.made_by": to_json(made_by)})


def sequences_schema(user_type: pa.DataType, item_type: pa.DataType, weighed: Collection[str] = ()) -> pa.Schema:
    """Return the schema of sequences: one row per user, item_ids and timestamps (Unix seconds, UTC), oldest first.

    item_ids and timestamps have the same length. also_seen: other items that the user has seen, sorted. weighed: names
    of WEIGHED_COLUMNS that the table has. weights: of the events, above 0. is_seen: whether each counts as seen.
    disliked: items that are never recommended to the user, sorted.
    """
    types = {"weights": pa.float32(), "is_seen": pa.bool_(), "disliked": item_type}
    return _with_contract(
        [
            pa.field("user_id", user_type, nullable=False),
            pa.field("item_ids", pa.list_(item_type), nullable=False),
            pa.field("timestamps", pa.list_(pa.int64()), nullable=False),
            pa.field("also_seen", pa.list_(item_type), nullable=False),
            *(pa.field(name, pa.list_(types[name]), nullable=False) for name in WEIGHED_COLUMNS if name in weighed),
        ],
        "sequences",
        WEIGHED_SEQUENCES_VERSION if weighed else SEQUENCES_VERSION,
    )


def items_schema(item_type: pa.DataType, *, is_weighed: bool = False) -> pa.Schema:
    """Return the schema of items: one row per item of the model, with its index (from 2) and number of events.

    Indexes are ordered by frequency, most frequent first. is_weighed: whether it has the sum of the events' weights.
    """
    return _with_contract(
        [
            pa.field("item_id", item_type, nullable=False),
            pa.field("item_index", pa.int32(), nullable=False),
            pa.field("n_events", pa.int64(), nullable=False),
            *([pa.field("weight", pa.float64(), nullable=False)] if is_weighed else []),
        ],
        "items",
        WEIGHED_ITEMS_VERSION if is_weighed else CONTRACT_VERSION,
    )


def lists_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """Return the schema of a baseline's lists: one row per item, with the columns of recs that a comparison needs."""
    return pa.schema(
        [
            pa.field("user_id", user_type, nullable=False),
            pa.field("rank", pa.int32(), nullable=False),
            pa.field("item_id", item_type, nullable=False),
        ]
    )


def recs_schema(
    user_type: pa.DataType,
    item_type: pa.DataType,
    *,
    with_titles: bool,
    made_by: dict[str, Any],
    with_reasons: bool = False,
) -> pa.Schema:
    """Return the schema of recs: one row per recommendation.

    Ranks start at 1 without gaps; scores do not increase within a user and source. history_digest: see
    batching.history_digests. made_by: everything else that the rows depend on, stored in the metadata. with_reasons:
    whether it has REASON_COLUMNS.
    """
    # Plain lists, because ADBC copies no lists of structs into Postgres.
    types = (
        pa.string(),
        *(pa.list_(pa.field("element", type_, nullable=False)) for type_ in (item_type, pa.float32())),
    )
    reasons = [
        pa.field(name, type_, nullable=name == "carried_by") for name, type_ in zip(REASON_COLUMNS, types, strict=True)
    ]
    schema = _with_contract(
        [
            pa.field("user_id", user_type, nullable=False),
            pa.field("rank", pa.int32(), nullable=False),
            pa.field("item_id", item_type, nullable=False),
            pa.field("score", pa.float32(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("model_id", pa.string(), nullable=False),
            pa.field("history_digest", pa.int64(), nullable=False),
            *([pa.field("title", pa.string())] if with_titles else []),
            *(reasons if with_reasons else []),
        ],
        "recs",
    )
    return _with_made_by(schema, made_by)


def similar_schema(item_type: pa.DataType, *, with_titles: bool, made_by: dict[str, Any]) -> pa.Schema:
    """Return the schema of similar: one row per item and similar item, ordered by item_id, best first.

    Ranks start at 1 without gaps. title: of the similar item. made_by: what the rows depend on, in the metadata.
    """
    schema = _with_contract(
        [
            pa.field("item_id", item_type, nullable=False),
            pa.field("rank", pa.int32(), nullable=False),
            pa.field("similar_item_id", item_type, nullable=False),
            pa.field("score", pa.float32(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("model_id", pa.string(), nullable=False),
            *([pa.field("title", pa.string())] if with_titles else []),
        ],
        "similar",
    )
    return _with_made_by(schema, made_by)


def vectors_schema(column: str, type_: pa.DataType, n_dimensions: int, model_id: str) -> pa.Schema:
    """Return the schema of vectors: one row per item or user, whose id is in `column`; model_id: in the metadata."""
    schema = _with_contract(
        [
            pa.field(column, type_, nullable=False),
            pa.field("vector", pa.list_(pa.field("element", pa.float32(), nullable=False), n_dimensions), False),
        ],
        "vectors",
    )
    return schema.with_metadata({**schema.metadata, "batchrec.model_id": model_id})


def made_by(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return what the rows of a recs table depend on, from the metadata of its schema. Raises KeyError without it."""
    options: dict[str, Any] = json.loads(metadata[b"batchrec.made_by"])
    return options


def evaluation_schema() -> pa.Schema:
    """Return the schema of an evaluation: one row per method, with each metric's mean over users and 95 % interval."""
    figures = ["ndcg", "hit_rate", "recall", "mrr", "ndcg_gain"]
    return _with_contract(
        [
            pa.field("protocol", pa.string(), nullable=False),
            pa.field("question", pa.string(), nullable=False),
            pa.field("k", pa.int32(), nullable=False),
            pa.field("method", pa.string(), nullable=False),
            *(
                pa.field(figure + bound, pa.float64(), nullable=False)
                for figure in figures
                for bound in ("", "_low", "_high")
            ),
            pa.field("coverage", pa.float64(), nullable=False),
            pa.field("mean_popularity_rank", pa.float64()),
            pa.field("users_with_full_list", pa.int64(), nullable=False),
        ],
        "evaluation",
        EVALUATION_VERSION,
    )
