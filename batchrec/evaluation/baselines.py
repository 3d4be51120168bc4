"""The baselines that a model must beat: top-k lists of simple methods, in SQL only.

Popularity here answers: which items have the most events in the training part of the split, of all time (popular) or
in its last days (recently_popular)? Each tested user gets these items, without those already seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from batchrec.config import EvaluationConfig
from batchrec.tables.parquet import cast_batches
from batchrec.tables.queries import materialize, select

# Users per query: their sums, over some thousand items each, must fit in memory.
_USERS_AT_A_TIME = 10_000
# Newest items per user that are paired, best neighbours kept per item, and newest items per user to recommend from.
_PAIRED_ITEMS = 100
_NEIGHBOURS = 100
_QUERY_ITEMS = 20


@dataclass(frozen=True)
class Baselines:
    """The baselines over the tables made by `splits.split_sequences`.

    Each yields batches of user_id, rank (from 1, without gaps) and item_id, by `schema`; a user with fewer than k
    candidate items gets fewer rows, or none.
    """

    con: duckdb.DuckDBPyConnection
    schema: pa.Schema
    config: EvaluationConfig

    def popular(self) -> Iterator[pa.RecordBatch]:
        """Recommend the items with the most events."""
        return self._batches("evaluation/popular", days=None)

    def recently_popular(self) -> Iterator[pa.RecordBatch]:
        """Recommend the items with the most events in the last days of the training part."""
        return self._batches("evaluation/popular", days=self.config.popular_days)

    def item_to_item(self) -> Iterator[pa.RecordBatch]:
        """Recommend the items that share users with the user's newest items, by cosine similarity."""
        materialize(self.con, "evaluation/neighbours", items_per_user=_PAIRED_ITEMS, neighbours_per_item=_NEIGHBOURS)
        yield from self._batches("evaluation/item_to_item", items_per_user=_QUERY_ITEMS)
        self.con.execute("drop table neighbours")

    def _batches(self, query: str, **values: int | None) -> Iterator[pa.RecordBatch]:
        for first in range(0, len(self.con.table("tested_users")), _USERS_AT_A_TIME):
            lists = select(
                self.con,
                query,
                k=self.config.top_k,
                keep_seen=self.config.keep_seen,
                first=first,
                last=first + _USERS_AT_A_TIME - 1,
                **values,
            )
            yield from cast_batches(lists, self.schema, self.config.top_k * _USERS_AT_A_TIME)
