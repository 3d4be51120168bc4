"""The baselines that a model must beat: top-k lists of simple methods, in SQL only.

Popularity here answers: which items have the most events in the training part of the split, of all time (popular) or
in its last days? Each tested user gets these items, without those already seen.
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
# Besides --popular-days: on many logs a week predicts the next one better than a month.
_WEEK = 7
# Of the recency-weighted item-to-item method.
_SHRINKAGE = 3
_DECAY = 0.5


@dataclass(frozen=True)
class Baselines:
    """The baselines over the tables made by `splits.split_sequences`.

    Each yields batches of user_id, rank (from 1, without gaps) and item_id, by `schema`; a user with fewer than k
    candidate items gets fewer rows, or none.
    """

    con: duckdb.DuckDBPyConnection
    schema: pa.Schema
    config: EvaluationConfig

    def by_name(self) -> dict[str, Iterator[pa.RecordBatch]]:
        """Return all baselines by name; their lists are computed when read, one method at a time.

        Personal frequency is one of them only with keep_seen: without it none of the user's own items is left.
        """
        windows = sorted({_WEEK, self.config.popular_days})
        methods = {
            "popular": self.popular(),
            **{f"popular, last {days} days": self.popular(days) for days in windows},
            "item-to-item": self.item_to_item(),
            "item-to-item, recency-weighted": self.item_to_item(_SHRINKAGE, _DECAY),
        }
        if self.config.keep_seen:
            methods["personal frequency"] = self.personal_frequency()
        return methods

    def popular(self, days: int | None = None) -> Iterator[pa.RecordBatch]:
        """Recommend the items with the most events, of all time or in the last days of the training part."""
        materialize(self.con, "evaluation/popular_items", days=days)
        yield from self._batches("evaluation/popular", keep_seen=self.config.keep_seen)
        self.con.execute("drop table popular_items")

    def personal_frequency(self) -> Iterator[pa.RecordBatch]:
        """Recommend the items that the user took most often, then the popular items of the last days."""
        materialize(self.con, "evaluation/popular_items", days=self.config.popular_days)
        yield from self._batches("evaluation/personal_frequency")
        self.con.execute("drop table popular_items")

    def item_to_item(self, shrinkage: int = 0, decay: float = 0.0) -> Iterator[pa.RecordBatch]:
        """Recommend the items that share users with the user's newest items, by cosine similarity.

        shrinkage: users added to the denominator of each cosine. decay: the newest item counts fully, the one in place
        n from it n ** -decay.
        """
        materialize(
            self.con,
            "evaluation/neighbours",
            items_per_user=_PAIRED_ITEMS,
            neighbours_per_item=_NEIGHBOURS,
            shrinkage=shrinkage,
        )
        yield from self._batches(
            "evaluation/item_to_item", keep_seen=self.config.keep_seen, items_per_user=_QUERY_ITEMS, decay=decay
        )
        self.con.execute("drop table neighbours")

    def _batches(self, query: str, **values: float) -> Iterator[pa.RecordBatch]:
        for first in range(0, len(self.con.table("tested_users")), _USERS_AT_A_TIME):
            last = first + _USERS_AT_A_TIME - 1
            lists = select(self.con, query, k=self.config.top_k, first=first, last=last, **values)
            yield from cast_batches(lists, self.schema, self.config.top_k * _USERS_AT_A_TIME)
