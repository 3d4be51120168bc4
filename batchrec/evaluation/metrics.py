"""Metrics of one method's lists: per tested user, and how much of the catalogue they reach."""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from batchrec.arrays import Doubles
from batchrec.tables.queries import literal, select

METRICS = ("ndcg", "hit_rate", "recall", "mrr")


@dataclass(frozen=True)
class MethodMetrics:
    """The metrics of a method's lists.

    metrics: (users, 4) float64, the METRICS of each tested user in the order of ids, each from 0 to 1.
    n_items: distinct items in the lists. mean_popularity_rank: mean over the rows, 1 for the most popular item; None
    without rows.
    """

    method: str
    metrics: Doubles
    n_items: int
    mean_popularity_rank: float | None
    users_with_full_list: int


def measure_lists(con: duckdb.DuckDBPyConnection, method: str, lists: Path, k: int) -> MethodMetrics:
    """Measure the lists in a Parquet file of user_id, rank and item_id against the table test_items.

    All methods use the same query: sql/evaluation/user_metrics.sql has the definitions.
    """
    metrics = select(con, "evaluation/user_metrics", path=literal(lists), k=k).fetchnumpy()
    n_items, mean_popularity_rank, n_full = select(con, "evaluation/list_reach", path=literal(lists), k=k).fetchall()[0]
    columns = [np.asarray(metrics[name], dtype=np.float64) for name in METRICS]
    return MethodMetrics(method, np.column_stack(columns), n_items, mean_popularity_rank, n_full)
