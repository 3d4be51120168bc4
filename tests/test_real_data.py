"""Histories of real ratings against pandas; BATCHREC_DATA names the folder that holds the data sets."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from batchrec.config import SequencesConfig
from batchrec.sequences.build import build_sequences

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("BATCHREC_DATA", "."))
MOVIELENS = DATA / "ml-latest-small" / "ratings.csv"
RETAIL = DATA / "online-retail" / "by-day"

SALES = """
select
    CustomerID as user_id,
    StockCode as item_id,
    InvoiceDate as timestamp
from read_csv('{folder}/*.csv', header = true, auto_detect = false, columns = {{
    'InvoiceNo': 'varchar', 'StockCode': 'varchar', 'Description': 'varchar', 'Quantity': 'integer',
    'InvoiceDate': 'timestamp', 'UnitPrice': 'double', 'CustomerID': 'double', 'Country': 'varchar'
}})
where InvoiceNo not like 'C%' and Quantity > 0 and CustomerID is not null
"""


def histories_of(events: pd.DataFrame) -> dict[Any, set[tuple[int, Any]]]:
    return {user: set(zip(rows["time"], rows["item"], strict=True)) for user, rows in events.groupby("user")}


def histories_in(file: Path) -> dict[Any, set[tuple[int, Any]]]:
    """Read histories as sets of events, having checked that they are in time order and hold no event twice."""
    rows = pq.read_table(file).to_pylist()
    assert all(row["timestamps"] == sorted(row["timestamps"]) for row in rows)
    pairs = {row["user_id"]: list(zip(row["timestamps"], row["item_ids"], strict=True)) for row in rows}
    assert len(pairs) == len(rows)
    assert sum(map(len, pairs.values())) == sum(len(set(history)) for history in pairs.values())
    return {user: set(history) for user, history in pairs.items()}


@pytest.mark.skipif(not MOVIELENS.is_file(), reason="BATCHREC_DATA holds no ml-latest-small")
@pytest.mark.parametrize("filters", [{}, {"min_rating": 3.5, "min_item_events": 5, "min_user_events": 20}])
def test_histories_of_movielens_equal_pandas(tmp_path: Path, filters: dict[str, Any]) -> None:
    ratings = pd.read_csv(MOVIELENS).set_axis(["user", "item", "rating", "time"], axis="columns")
    kept = ratings[ratings["rating"] >= filters.get("min_rating", 0)]
    for column, name in (("item", "min_item_events"), ("user", "min_user_events")):
        kept = kept[kept.groupby(column)[column].transform("size") >= filters.get(name, 1)]
    report = build_sequences([str(MOVIELENS)], SequencesConfig(**filters), tmp_path / "h.parquet")
    assert histories_in(tmp_path / "h.parquet") == histories_of(kept)
    assert report.rows_read == len(ratings)
    assert (report.events, report.users, report.items) == (len(kept), kept["user"].nunique(), kept["item"].nunique())


@pytest.mark.skipif(not RETAIL.is_dir(), reason="BATCHREC_DATA holds no online-retail")
def test_histories_of_sales_through_a_query_equal_pandas(tmp_path: Path) -> None:
    files = sorted(RETAIL.glob("*.csv"))
    lines = pd.concat([pd.read_csv(file, dtype={"InvoiceNo": str, "StockCode": str}) for file in files])
    is_sale = ~lines["InvoiceNo"].str.startswith("C") & (lines["Quantity"] > 0) & lines["CustomerID"].notna()
    sales = pd.DataFrame(
        {
            "user": lines["CustomerID"][is_sale].astype("int64"),
            "item": lines["StockCode"][is_sale],
            "time": pd.to_datetime(lines["InvoiceDate"][is_sale]).astype("datetime64[s]").astype("int64"),
        }
    )
    newest = sales.sort_values("time").drop_duplicates(["user", "item"], keep="last")
    query = tmp_path / "sales.sql"
    query.write_text(SALES.format(folder=RETAIL))
    report = build_sequences([], SequencesConfig(query=str(query)), tmp_path / "h.parquet")
    assert histories_in(tmp_path / "h.parquet") == histories_of(newest)
    assert report.rows_read == len(sales)
    assert report.duplicates_folded == len(sales) - len(newest)
