"""The contracts: Arrow schemas of the tables between the jobs, their version in the metadata."""

from typing import Any

import pyarrow as pa

from batchrec.errors import InputError
from batchrec.system.json_text import to_json

CONTRACT_VERSION = 1
# Since version 2 with also_seen; without the column nothing is.
SEQUENCES_VERSION = 2
MODEL_VERSION = 3

# Indexes of the vocabulary that are not items.
PAD = 0
MASK = 1
FIRST_ITEM = 2

# Where a row comes from, and the code of each in arrays.
SOURCES = ("model", "popular_segment", "popular", "popular_all_time", "pinned")
BY_MODEL, BY_SEGMENT, BY_RECENT, BY_ALL_TIME, BY_PIN = range(len(SOURCES))


def id_type(found: pa.DataType, column: str, where: str) -> pa.DataType:
    """Give the contract's type of an id column: int64 or string.

    Raises InputError for any other type.
    """
    if pa.types.is_integer(found):
        return pa.int64()
    if pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return pa.string()
    raise InputError(f"{where}: column {column!r} is {found}; expected int64 or string")


def is_list(type_: pa.DataType) -> bool:
    """Return whether a column of this type holds lists."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_))


def _with_contract(fields: list[pa.Field], name: str, version: int = CONTRACT_VERSION) -> pa.Schema:
    return pa.schema(fields, {"batchrec.contract": f"{name}/{version}"})


def sequences_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """One row a user: item_ids and timestamps (Unix seconds, UTC) of equal length, oldest first.

    also_seen: other items that the user has seen, and that are in no history, sorted.
    """
    return _with_contract(
        [
            pa.field("user_id", user_type, nullable=False),
            pa.field("item_ids", pa.list_(item_type), nullable=False),
            pa.field("timestamps", pa.list_(pa.int64()), nullable=False),
            pa.field("also_seen", pa.list_(item_type), nullable=False),
        ],
        "sequences",
        SEQUENCES_VERSION,
    )


def items_schema(item_type: pa.DataType) -> pa.Schema:
    """One row an item of the model: its index (items from 2, most frequent first) and its events in the histories."""
    return _with_contract(
        [
            pa.field("item_id", item_type, nullable=False),
            pa.field("item_index", pa.int32(), nullable=False),
            pa.field("n_events", pa.int64(), nullable=False),
        ],
        "items",
    )


def lists_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """One row an item of a baseline's list: the columns of recs that a comparison needs."""
    return pa.schema(
        [
            pa.field("user_id", user_type, nullable=False),
            pa.field("rank", pa.int32(), nullable=False),
            pa.field("item_id", item_type, nullable=False),
        ]
    )


def recs_schema(
    user_type: pa.DataType, item_type: pa.DataType, *, with_titles: bool, made_by: dict[str, Any]
) -> pa.Schema:
    """One row a recommendation: ranks from 1 without gaps, scores not increasing within a user and source.

    history_digest: see batching.history_digests. made_by: what else the rows depend on; it stands in the metadata.
    """
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
        ],
        "recs",
    )
    return schema.with_metadata({**schema.metadata, "batchrec.made_by": to_json(made_by)})


def evaluation_schema() -> pa.Schema:
    """One row a method: the mean of each metric over the tested users, and the bounds of its 95 % interval."""
    figures = ["ndcg", "hit_rate", "recall", "mrr", "ndcg_gain"]
    return _with_contract(
        [
            pa.field("protocol", pa.string(), nullable=False),
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
    )
