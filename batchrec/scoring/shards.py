"""Shards: tables of recs for a part of the users, which `commit` merges.

A user's shard follows from the id alone (sql/tables/shard_of.sql), so all tasks agree on it. A shard has the columns
of recs and the position of the user among all users, by which the shards are merged. Its metadata say what it was
made of.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config.shard import Shard
from batchrec.scoring.inputs import ScoringInputs
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.scorer import ScoredChunk
from batchrec.system.json_text import to_json
from batchrec.tables.ids import BLANKS
from batchrec.tables.queries import connect, select
from batchrec.tables.schemas import made_by
from batchrec.tables.sealed_parquet import digest_of

POSITION = "position"
METADATA = b"batchrec.shard"
_HASHED_ROWS = 1 << 16


@dataclass
class ShardUsers:
    """The users of a shard among all users; n_users: how many users of all shards have been read."""

    shard: Shard
    n_users: int = 0

    def chunks(self, chunks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the shard's users of each chunk, with a column `position`: the user's place among all users."""
        with connect() as con:
            for chunk in chunks:
                places = pa.array(np.arange(len(chunk)))
                con.register("users", pa.table([places, chunk["user_id"]], ["place", "user_id"]))
                parameters = {"shard": self.shard.index, "n_shards": self.shard.n_shards, "blanks": BLANKS}
                kept = select(con, "scoring/users_of_shard", **parameters).fetchnumpy()["place"]
                positions = pa.array(self.n_users + kept)
                self.n_users += len(chunk)
                yield chunk.take(pa.array(kept)).append_column(POSITION, positions)


def shard_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a shard: that of recs, and the position."""
    metadata = {**schema.metadata, b"batchrec.contract": b"recs-shard/1"}
    return schema.append(pa.field(POSITION, pa.int64(), nullable=False)).with_metadata(metadata)


def with_positions(scored: ScoredChunk, chunk: pa.RecordBatch) -> ScoredChunk:
    """Add the position of each row's user; chunk: of ShardUsers.chunks, which was scored."""
    places = pc.index_in(scored.recs["user_id"], value_set=chunk["user_id"])
    columns = [*scored.recs.columns, chunk[POSITION].take(places)]
    return replace(scored, recs=pa.record_batch(columns, shard_schema(scored.recs.schema)))


def shard_metadata(users: ShardUsers, inputs: ScoringInputs, report: ScoringReport) -> dict[str, str]:
    """Return the metadata of a finished shard: all that has to be the same in all shards, and the shard's counts."""
    config = inputs.parts.config
    same = {
        "n_shards": users.shard.n_shards,
        "run_date": config.night.isoformat(),
        "sequences": digest_of(inputs.table.file),
        "rule and user tables": _tables_digest(inputs),
        "popular_days": config.popular_days,
        "n_users": users.n_users,
    }
    return {METADATA.decode(): to_json({"shard": users.shard.index, "same": same, "report": asdict(report)})}


def _tables_digest(inputs: ScoringInputs) -> str:
    """Return the SHA-256 of the rows of all rule tables and of --users, whatever their order."""
    tables = {option: table.rows for option, table in inputs.rules.items()}
    if inputs.listed is not None:
        tables["--users"] = pa.table({"user_id": inputs.listed})
    digest = sha256()
    for option, rows in sorted(tables.items()):
        digest.update(f"{option}:{rows.column_names}".encode())
        ordered = rows.sort_by([(name, "ascending") for name in rows.column_names])
        for batch in ordered.combine_chunks().to_batches(_HASHED_ROWS):
            digest.update(repr(batch.to_pylist()).encode())
    return digest.hexdigest()


def read_metadata(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return what `shard_metadata` wrote. Raises ValueError or KeyError unless the file is a shard."""
    shard: dict[str, Any] = json.loads(metadata[METADATA])
    return shard | {"same": {**made_by(metadata), **shard["same"]}}
