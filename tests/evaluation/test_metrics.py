"""The metrics of lists, against their definitions in plain Python."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.evaluation.metrics import METRICS, MethodMetrics, measure_lists
from batchrec.tables.queries import connect
from tests.support.models import examples

# Most popular first.
ITEMS = [f"item-{number}" for number in range(8)]
Lists = dict[int, list[str]]
Relevant = dict[int, set[str]]

lists_of_items = st.permutations(ITEMS).flatmap(lambda items: st.integers(0, 8).map(lambda n: items[:n]))
lists_of_users = st.dictionaries(st.integers(0, 5), lists_of_items)
relevant_items = st.dictionaries(
    st.integers(0, 5), st.sets(st.sampled_from([*ITEMS, "unknown"]), min_size=1), min_size=1
)


@contextmanager
def tables_of(relevant: Relevant) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(threads=1) as con:
        con.execute("create table test_items (user_id bigint, item_id varchar)")
        con.execute("create table training_items (item_id varchar, popularity bigint)")
        for user, items in relevant.items():
            con.executemany("insert into test_items values (?, ?)", [(user, item) for item in items])
        con.executemany("insert into training_items values (?, ?)", [(item, n) for n, item in enumerate(ITEMS, 1)])
        yield con


def measured(lists: Lists, relevant: Relevant, k: int) -> MethodMetrics:
    rows = [(user, rank, item) for user, items in lists.items() for rank, item in enumerate(items, 1)]
    users, ranks, items = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "rank": pa.array(ranks, pa.int32()),
            "item_id": pa.array(items, pa.string()),
        }
    )
    with tempfile.TemporaryDirectory() as folder, tables_of(relevant) as con:
        pq.write_table(table, Path(folder, "[lists].parquet"))
        return measure_lists(con, "method", Path(folder, "[lists].parquet"), k)


def by_definition(items: list[str], relevant: set[str], k: int) -> list[float]:
    gains = [item in relevant for item in items[:k]]
    dcg = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    first = next((1 / rank for rank, gain in enumerate(gains, 1) if gain), 0.0)
    return [dcg / ideal, float(any(gains)), sum(gains) / len(relevant), first]


@settings(max_examples=examples(40), deadline=None)
@given(lists=lists_of_users, relevant=relevant_items, k=st.integers(1, 9))
def test_the_metrics_are_those_of_the_definitions(lists: Lists, relevant: Relevant, k: int) -> None:
    found = measured(lists, relevant, k).metrics
    expected = [by_definition(lists.get(user, []), relevant[user], k) for user in sorted(relevant)]
    assert found.shape == (len(relevant), len(METRICS))
    assert found == pytest.approx(np.array(expected))


@pytest.mark.filterwarnings("ignore::Warning")  # of its compiler
@settings(max_examples=examples(10), deadline=None)
@given(lists=lists_of_users, relevant=relevant_items, k=st.integers(1, 9))
def test_the_metrics_are_those_of_ranx(lists: Lists, relevant: Relevant, k: int) -> None:
    ranx = pytest.importorskip("ranx")
    qrels = ranx.Qrels({str(user): dict.fromkeys(items, 1) for user, items in relevant.items()})
    # ranx ranks by score, and takes no query without results.
    run = ranx.Run(
        {
            str(user): {item: float(-rank) for rank, item in enumerate(lists.get(user) or ["nothing"])}
            for user in relevant
        }
    )
    expected = ranx.evaluate(qrels, run, [f"{name}@{k}" for name in ("ndcg", "hit_rate", "recall", "mrr")])
    assert measured(lists, relevant, k).metrics.mean(axis=0) == pytest.approx(list(expected.values()))


def test_the_best_list_is_worth_one_and_the_worst_nothing() -> None:
    relevant: Relevant = {1: {"item-0", "item-1"}, 2: {"item-0"}, 3: {"item-0"}}
    lists = {1: ["item-1", "item-0"], 2: ["item-1", "item-2"], 3: []}
    assert measured(lists, relevant, 2).metrics.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_the_reach_counts_items_once_and_their_popularity_by_row() -> None:
    found = measured({1: ["item-0", "item-1"], 2: ["item-0"], 3: ["item-0", "item-7"]}, {1: {"item-5"}}, 2)
    assert found.n_items == 3
    assert found.mean_popularity_rank == pytest.approx((1 + 2 + 1 + 1 + 8) / 5)
    assert found.users_with_full_list == 2


def test_without_lists_all_figures_are_zero() -> None:
    found = measured({}, {1: {"item-5"}, 2: {"item-1"}}, 2)
    assert found.metrics.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert (found.n_items, found.mean_popularity_rank, found.users_with_full_list) == (0, None, 0)
