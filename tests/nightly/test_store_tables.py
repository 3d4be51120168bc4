"""run: a night whose log and rules are tables of a store."""

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import StoreError
from batchrec.nightly.report import NightReport
from batchrec.nightly.run import run
from tests.support.nights import FIRST, Company

_LOG = "create table plays as from read_csv('ratings.csv')"
_BLOCKED = "create table blocked as select min(movieId) as ITEM_ID from plays"


def run_from(shop: Company, ratings: str, block: str) -> NightReport:
    jobs = replace(shop.jobs, ratings=[ratings], scoring=ScoringConfig(top_k=3, device="cpu", block=block))
    return run(jobs, shop.run_config, FIRST, shop.folder / "metrics.prom")


@pytest.mark.slow
def test_a_night_from_tables_equals_the_night_from_files(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    with duckdb.connect("shop.db") as con:
        con.execute(_LOG)
        con.execute(_BLOCKED)
        con.table("blocked").to_csv("blocked.csv")
    run_from(shop, "duckdb://shop.db?table=plays", "duckdb://shop.db?table=blocked")
    from_tables = shop.rows()
    for name in ("nights", "models"):
        Path(name).rename(f"{name} from tables")
    shop.trainings.clear()
    run_from(shop, "ratings.csv", "blocked.csv")
    assert from_tables == shop.rows() != []


def test_a_missing_rule_table_ends_the_night_before_the_training(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.folder)
    with duckdb.connect("shop.db") as con:
        con.execute(_LOG)
    with pytest.raises(StoreError, match="blocked does not exist"):
        run_from(shop, "duckdb://shop.db?table=plays", "duckdb://shop.db?table=blocked")
    assert shop.trainings == []
