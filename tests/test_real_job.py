"""The whole job on real data, if the environment variable BATCHREC_DATA names the folder that holds the data."""

import os
from pathlib import Path

import pandas as pd
import pytest

from batchrec import ScoringConfig, SequencesConfig, TrainingConfig, build_sequences, score, train

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("BATCHREC_DATA", "no folder given"))
QUERY = """
    select CustomerID as user_id, StockCode as item_id, InvoiceDate as timestamp
    from read_csv('{folder}/*.csv', types = {{'InvoiceNo': 'varchar', 'StockCode': 'varchar'}})
    where CustomerID is not null and InvoiceNo not like 'C%' and Quantity > 0
"""


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"BATCHREC_DATA holds no folder {folder}")


@needs("ml-latest-small")
def test_movielens_gives_every_user_k_unseen_items_and_beats_popularity(tmp_path: Path) -> None:
    folder = DATA / "ml-latest-small"
    build_sequences([str(folder / "ratings.csv")], SequencesConfig(), tmp_path / "sequences.parquet")
    trained = train(tmp_path / "sequences.parquet", TrainingConfig(max_epochs=40, seed=3), tmp_path / "model")
    config = ScoringConfig(top_k=10, items=str(folder / "movies.csv"))
    scored = score(tmp_path / "sequences.parquet", tmp_path / "model", config, tmp_path / "recs.parquet")

    assert trained.ndcg_at_10 > trained.popularity_ndcg_at_10
    assert trained.hr_at_10 > trained.popularity_hr_at_10
    assert (scored.users, scored.rows) == (610, 6100)
    ratings = pd.read_csv(folder / "ratings.csv")
    recs = pd.read_parquet(tmp_path / "recs.parquet")
    assert set(recs["user_id"]) == set(ratings["userId"])
    assert recs.groupby("user_id")["rank"].apply(list).map(lambda ranks: ranks == list(range(1, 11))).all()
    assert recs.merge(ratings, left_on=["user_id", "item_id"], right_on=["userId", "movieId"]).empty
    titles = pd.read_csv(folder / "movies.csv").set_index("movieId")["title"].to_dict()
    assert recs["title"].tolist() == recs["item_id"].map(titles).tolist()


@needs("online-retail")
def test_online_retail_goes_through_a_query_with_text_item_codes_and_descriptions(tmp_path: Path) -> None:
    folder = DATA / "online-retail" / "by-day"
    (tmp_path / "events.sql").write_text(QUERY.format(folder=folder), encoding="utf-8")
    build_sequences([], SequencesConfig(query=str(tmp_path / "events.sql")), tmp_path / "sequences.parquet")
    train(tmp_path / "sequences.parquet", TrainingConfig(max_epochs=2), tmp_path / "model")
    config = ScoringConfig(items=str(folder), item_column="StockCode", title_column="Description")
    report = score(tmp_path / "sequences.parquet", tmp_path / "model", config, tmp_path / "recs.parquet")

    sales = pd.concat([pd.read_csv(file, dtype={"StockCode": str, "InvoiceNo": str}) for file in folder.glob("*.csv")])
    bought = sales[sales["CustomerID"].notna() & ~sales["InvoiceNo"].str.startswith("C") & (sales["Quantity"] > 0)]
    recs = pd.read_parquet(tmp_path / "recs.parquet")
    assert report.users == bought["CustomerID"].nunique()
    assert set(recs["user_id"]) == set(bought["CustomerID"].astype(int))
    assert recs.merge(bought, left_on=["user_id", "item_id"], right_on=["CustomerID", "StockCode"]).empty
    assert recs["item_id"].isin(bought["StockCode"]).all()
    assert recs["title"].notna().mean() > 0.99
