"""A table of a DuckDB file as target."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from batchrec.errors import ConfigError, StoreError
from batchrec.targets import Target, duckdb_table, open_target
from tests.support.recs import NIGHT, recs_rows, write_recs

OUT = "duckdb://recs.db?table=recs"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def publish(target: Target, user: object = 1) -> str:
    table = write_recs(Path("recs.parquet"), recs_rows({user: [1, 2]}))
    with target.replacing(table):
        pass
    return table.sha256


def execute(statement: str) -> None:
    with duckdb.connect("recs.db") as con:
        con.execute(statement)


def test_a_second_table_records_what_made_each_run_date() -> None:
    sha256 = publish(open_target(OUT))
    with duckdb.connect("recs.db") as con:
        assert con.execute("from recs_runs").fetchall() == [(NIGHT, "r1", "m1", sha256)]


def test_the_table_may_be_in_a_schema_and_have_any_name(folder: Path) -> None:
    execute('create schema "the shop"; create table other as select 1 as a')
    target = open_target(f"duckdb://{folder}/recs.db?table=the%20shop.user's%20recs")
    target.check_writable()
    sha256 = publish(target)
    assert target.sha256() == sha256
    with duckdb.connect("recs.db") as con:
        assert con.execute('select count(*) from "the shop"."user\'s recs"').fetchall() == [(2,)]
        assert con.execute("from other").fetchall() == [(1,)]


def test_a_file_that_another_process_holds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(open_target(OUT))
    monkeypatch.setattr(duckdb_table, "LOCK_PATIENCE_S", 0)
    holds = "import duckdb; con = duckdb.connect('recs.db'); print('holds', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        for use in (open_target(OUT).check_writable, open_target(OUT).sha256, lambda: publish(open_target(OUT))):
            with pytest.raises(
                StoreError, match=r"^duckdb://recs.db\?table=recs: cannot be opened: .*Could not set lock"
            ):
                use()
        process.kill()
    publish(open_target(OUT))


def test_the_columns_of_another_table_are_found_before_any_work() -> None:
    execute("create table recs (a int)")
    with pytest.raises(ConfigError, match=r"table=recs: exists with columns a; expected .*Pass another --out"):
        open_target(OUT).check_writable()
    execute("drop table recs")
    publish(open_target(OUT))
    with pytest.raises(ConfigError, match=r"expected .*recommendations.*which --layout nested writes"):
        open_target(OUT, "nested").check_writable()


@pytest.mark.parametrize(
    ("statement", "out", "said"),
    [
        (
            "create table recs_runs (run_date date, note text)",
            OUT,
            "recs_runs.* exists with columns run_date, note; exp",
        ),
        ("create table other as {recs}; create view recs as from other", OUT, "Can only delete from base table"),
        ("create table other (a int)", f"{OUT[:-4]}shop.recs", "Schema with name shop does not exist"),
        (None, f"{OUT[:-4]}shop.recs", "recs.db does not exist. Create it with the schema shop"),
    ],
)
def test_what_a_publication_could_not_change_is_found_before_any_work(
    statement: str | None, out: str, said: str
) -> None:
    if statement:
        names = ("user_id", "rank", "item_id", "score", "source", "model_id", "history_digest", "run_date")
        execute(statement.format(recs="select " + ", ".join(f"1 as {name}" for name in names)))
    with pytest.raises((ConfigError, StoreError), match=said):
        open_target(out).check_writable()
    if statement:
        with duckdb.connect("recs.db") as con:
            assert len(con.sql("from duckdb_tables()").fetchall()) == 1


def test_ids_of_another_type_are_refused_and_the_rows_stay() -> None:
    target = open_target(OUT)
    sha256 = publish(target)
    with pytest.raises(ConfigError, match=r"column user_id is BIGINT, but that of the new rows is VARCHAR\. Change"):
        publish(target, "a")
    assert target.sha256() == sha256
    with duckdb.connect("recs.db") as con:
        assert con.execute("select distinct user_id from recs").fetchall() == [(1,)]


def test_a_dropped_table_is_not_taken_for_published() -> None:
    target = open_target(OUT)
    publish(target)
    execute("drop table recs")
    assert target.sha256() is None
    target.check_writable()
    assert publish(target) == target.sha256()


def test_a_table_without_titles_is_published_next_to_one_with_them() -> None:
    target = open_target(OUT)
    with target.replacing(write_recs(Path("recs.parquet"), recs_rows({1: [1, 2]}, with_titles=True))):
        pass
    publish(target)
    with duckdb.connect("recs.db") as con:
        assert con.execute("select title from recs").fetchall() == [(None,), (None,)]
        con.execute("alter table recs drop column title")
    titled = write_recs(Path("recs.parquet"), recs_rows({1: [1, 2]}, with_titles=True))
    with pytest.raises(ConfigError, match="column title is missing, but that of the new"), target.replacing(titled):
        pass


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("duckdb://recs.db", r"has no table; expected one like \?table=recs"),
        ("duckdb://recs.db?table=a&mode=b", "unknown parameter mode"),
        ("duckdb://missing/recs.db?table=a", "folder missing does not exist"),
        ("duckdb://there/?table=a", "is a folder"),
        ("duckdb://there/what%3F.db?table=a", r"a name with \?, as in /.*there/what\?\.db"),
        (r"duckdb://there/a%5Cb.db?table=a", r"a name with \\,"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(out: str, message: str) -> None:
    Path("there").mkdir()
    with pytest.raises(ConfigError, match=message):
        open_target(out).check_writable()


@pytest.mark.parametrize("name", [":memory:", "md:recs.db", "duckdb:recs.db", "sqlite:recs.db"])
def test_a_name_that_duckdb_would_take_for_another_place_is_one_of_a_file(name: str) -> None:
    target = open_target(f"duckdb://{name}?table=recs")
    sha256 = publish(target)
    assert target.sha256() == sha256
    assert Path(name).is_file()
    assert not Path("recs.db").exists()


@pytest.mark.parametrize("name", ["recs.csv", "recs.parquet", "recs.json", "damaged.db"])
def test_a_file_of_another_format_is_refused_and_stays(name: str) -> None:
    Path("recs.csv").write_text("user_id,item_id\n1,2\n", encoding="utf-8")
    Path("recs.json").write_text('{"user_id": 1, "item_id": 2}\n', encoding="utf-8")
    Path("damaged.db").write_bytes(b"x" * 5000)
    write_recs(Path("recs.parquet"), recs_rows({1: [1, 2]}))
    before = Path(name).read_bytes()
    with pytest.raises(StoreError, match=r"not a (valid DuckDB )?database"):
        open_target(f"duckdb://{name}?table=recs").check_writable()
    assert Path(name).read_bytes() == before
