"""What a model must beat: top-k lists of simple methods, by SQL alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from batchrec.config import EvaluationConfig
from batchrec.tables.parquet import cast_batches
from batchrec.tables.queries import materialize, select

# Users in one query: what is summed up for them, some thousand items each, stays in memory.
_USERS_AT_A_TIME = 10_000
# Newest items of a user that are paired, best neighbours kept of an item, and newest items that speak for a user.
_PAIRED_ITEMS = 100
_NEIGHBOURS = 100
_SPEAKING_ITEMS = 20


@dataclass(frozen=True)
class Baselines:
    """The baselines over the tables that `protocols.split` made.

    Each gives batches of user_id, rank (from 1, without gaps) and item_id, by `schema`; a user for whom it finds fewer
    than k items gets fewer rows, or none.
    """

    con: duckdb.DuckDBPyConnection
    schema: pa.Schema
    config: EvaluationConfig

    def popular(self) -> Iterator[pa.RecordBatch]:
        """Recommend the items with most events."""
        return self._batches("evaluation/popular", days=None)

    def popular_lately(self) -> Iterator[pa.RecordBatch]:
        """Recommend the items with most events in the last days of the training part."""
        return self._batches("evaluation/popular", days=self.config.popular_days)

    def item_to_item(self) -> Iterator[pa.RecordBatch]:
        """Recommend the items whose users are those of the user's newest items, by cosine."""
        materialize(self.con, "evaluation/neighbours", items_of_a_user=_PAIRED_ITEMS, neighbours_of_an_item=_NEIGHBOURS)
        yield from self._batches("evaluation/item_to_item", items_of_a_user=_SPEAKING_ITEMS)
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
