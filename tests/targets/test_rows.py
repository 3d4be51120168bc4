"""The rows of a table in each layout: DuckDB and pyarrow read back what was written."""

import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.errors import ConfigError, InputError
from batchrec.targets.rows import check_columns, open_rows
from tests.support.damage import flip_a_bit
from tests.support.models import examples
from tests.support.recs import NIGHT, recs_rows, write_recs

IDS = st.integers(-3, 30) | st.integers(2**62, 2**63 - 1)
TEXTS = st.text("aé𝄞 '\",", max_size=3)


def lists_of(ids: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, list[Any]]]:
    return st.dictionaries(ids, st.lists(ids, min_size=1, max_size=4, unique=True), max_size=12)


@settings(max_examples=examples(100))
@given(
    lists=lists_of(IDS) | lists_of(TEXTS),
    with_titles=st.booleans(),
    with_reasons=st.booleans(),
    batch_rows=st.integers(1, 9),
    n_rows=st.integers(1, 12),
)
def test_both_layouts_hold_the_same_rows_ordered_by_user(
    lists: dict[Any, list[Any]], with_titles: bool, with_reasons: bool, batch_rows: int, n_rows: int
) -> None:
    rows = recs_rows(lists, with_titles=with_titles, with_reasons=with_reasons)
    with tempfile.TemporaryDirectory() as folder:
        table = write_recs(Path(folder, "recs.parquet"), rows, batch_rows=batch_rows)
        with open_rows(table, "long", is_dated=True, batch_rows=n_rows) as reader:
            long = list(reader)
        with open_rows(table, "nested", is_dated=False, batch_rows=n_rows) as reader:
            nested = reader.read_all()
    expected = sorted(pq_rows(rows), key=lambda row: (order(row["user_id"]), row["rank"]))
    assert [row for batch in long for row in batch.to_pylist()] == [row | {"run_date": NIGHT} for row in expected]
    users = [set(batch["user_id"].to_pylist()) for batch in long]
    assert sum(map(len, users)) == len(set().union(*users)), "a user is in two batches"
    assert all(len(batch) >= n_rows for batch in long[:-1])
    assert nested["user_id"].to_pylist() == sorted(lists, key=order)
    names = ", ".join(expected[0]) if expected else "user_id"
    unnested = duckdb.sql("select * exclude (recommendations), unnest(recommendations, max_depth := 2) from nested")
    assert unnested is not None
    assert unnested.project(names).to_arrow_table().to_pylist() == expected


def order(user: Any) -> Any:
    """DuckDB and Arrow order texts by their bytes."""
    return user.encode() if isinstance(user, str) else user


def pq_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with scores as float32 holds them."""
    return [row | {"score": pa.scalar(row["score"], pa.float32()).as_py()} for row in rows]


def test_a_user_with_more_rows_than_a_batch_stays_whole(tmp_path: Path) -> None:
    table = write_recs(tmp_path / "recs.parquet", recs_rows({1: [7], 2: list(range(50)), 3: [8, 9]}), batch_rows=5)
    with open_rows(table, "long", is_dated=False, batch_rows=5) as reader:
        assert [batch["user_id"].unique().to_pylist() for batch in reader] == [[1, 2], [3]]


def test_an_unordered_table_is_ordered(tmp_path: Path) -> None:
    table = write_recs(tmp_path / "recs.parquet", recs_rows({"b": [1, 2], "a": [3], "ä": [4], "c": [5]}))
    with open_rows(table, "long", is_dated=False) as reader:
        assert reader.read_all()["user_id"].to_pylist() == ["a", "b", "b", "c", "ä"]


def test_rows_have_no_nulls_where_recs_have_none(tmp_path: Path) -> None:
    table = write_recs(tmp_path / "recs.parquet", recs_rows({1: [7]}, with_titles=True))
    with open_rows(table, "nested", is_dated=True) as reader:
        schema = reader.schema
    assert schema.names == ["user_id", "history_digest", "model_id", "recommendations", "run_date"]
    assert not any(field.nullable for field in schema)
    item = schema.field("recommendations").type.value_type
    assert [(field.name, field.nullable) for field in item] == [
        *((name, False) for name in ("rank", "item_id", "score", "source")),
        ("title", True),
    ]


def test_a_damaged_table_is_an_input_error(tmp_path: Path) -> None:
    table = write_recs(tmp_path / "recs.parquet", recs_rows({1: [7]}))
    flip_a_bit(table.recs, 20)
    with pytest.raises(InputError, match="SHA-256 has changed"), open_rows(table, "long", is_dated=False):
        pass


def test_columns_of_another_table_are_refused() -> None:
    long = ["user_id", "rank", "item_id", "score", "source", "model_id", "history_digest", "run_date"]
    check_columns(long, "long", "db")
    check_columns([*long, "title"], "long", "db")
    check_columns([*long, "carried_by", "because_items", "because_weights"], "long", "db")
    check_columns(["user_id", "history_digest", "model_id", "recommendations", "run_date"], "nested", "db")
    for names in (["id"], long[:-1], [*long, "other"], [*long, "recommendations"]):
        with pytest.raises(ConfigError, match=r"^db: exists with columns .*Pass another --out"):
            check_columns(names, "long", "db")
