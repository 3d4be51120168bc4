"""Queries as sources: they may read, but cannot write or affect the job."""

from pathlib import Path

import duckdb
import pytest

from tests.conftest import BuildSequences
from tests.support.log_files import T, events, fails, write

pytestmark = pytest.mark.usefixtures("detected_unit")


def test_a_query_attaches_databases_read_only(build: BuildSequences) -> None:
    with duckdb.connect("shop.duckdb") as con:
        con.execute(f"create table plays as select 1 as u, 2 as i, {T} as t")
    before = Path("shop.duckdb").read_bytes()
    select = "select u as user_id, i as item_id, t as timestamp from shop.plays"
    for attach in (
        "attach 'shop.duckdb'",
        "attach 'shop.duckdb' as shop (read_only)",
        "attach 'shop.duckdb' as shop (type duckdb)",
    ):
        write("q.sql", f"-- of the shop\n{attach}; set variable start = 0;\n{select} where t > getvariable('start');\n")
        assert build("--query", "q.sql").histories == {1: [2]}
    assert Path("shop.duckdb").read_bytes() == before
    write("q.sql", f"attach 'new.duckdb' as shop; {select}")
    fails(build("--query", "q.sql"), "q.sql", "new.duckdb")
    assert not Path("new.duckdb").exists()


@pytest.mark.parametrize(
    "statement",
    ["copy (select 1) to 'x.csv'", "create table shop.x as select 1", "insert into shop.plays values (1)", "select 1"],
)
def test_a_query_cannot_write(build: BuildSequences, statement: str) -> None:
    with duckdb.connect("shop.duckdb") as con:
        con.execute("create table plays as select 1 as u")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    write("q.sql", f"attach 'shop.duckdb'; {statement}; select 1 as user_id, 2 as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql")
    del before[Path("shop.duckdb")]
    assert set(Path().iterdir()) == {*before, Path("shop.duckdb"), Path("q.sql")}


def test_a_query_that_sets_the_time_zone_does_not_change_times(build: BuildSequences) -> None:
    write("q.sql", "set timezone = 'Asia/Tokyo'; select 1 as user_id, 2 as item_id, '2024-01-01 00:00:00' as timestamp")
    assert build("--query", "q.sql").times == [1704067200]


@pytest.mark.parametrize(
    "statement",
    [
        "set default_order = 'desc'",
        "set default_null_order = 'nulls_first'",
        "create macro epoch_us(x) as 5",
        "create table events as select 1 as x",
        "create view records as select 1 as x",
        "create table query as select 1 as x",
        "attach ':memory:' as m; use m; create table loaded_events as select 1 as x",
    ],
)
def test_settings_and_names_of_a_query_do_not_affect_the_job(build: BuildSequences, statement: str) -> None:
    write("q.sql", f"{statement}; select 1 as user_id, unnest(range(5)) as item_id, item_id + {T} as timestamp")
    assert events(build("--query", "q.sql")) == {1: [(item, T + item) for item in range(5)]}


@pytest.mark.parametrize("attach", ["attach 'new.db' as read_only", "attach 'new.db' as x (read_only false)"])
def test_a_query_cannot_create_a_database(build: BuildSequences, attach: str) -> None:
    write("q.sql", f"{attach}; select 1 as user_id, 2 as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql")
    assert not Path("new.db").exists()
    write("q.sql", f"create persistent secret s (type s3); select 1 as user_id, 2 as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql", "CREATE")


def test_a_query_sees_the_run_date(build: BuildSequences) -> None:
    write("q.sql", "select 1 as user_id, 2 as item_id, getvariable('run_date') as timestamp")
    assert build("--query", "q.sql", "--run-date", "2024-01-01").times == [1704067200]


def test_a_query_may_use_a_counter_as_time_with_a_warning(build: BuildSequences) -> None:
    write("ratings.csv", "userId,movieId\n1,2\n1,3\n")
    write("q.sql", "select userId as user_id, movieId as item_id, row_number() over () as timestamp from 'ratings.csv'")
    outcome = build("--query", "q.sql")
    assert outcome.histories == {1: [2, 3]}
    assert "all times are in 1970" in outcome.stderr
