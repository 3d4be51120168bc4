"""Postgres as target: its tables, lost connections, and databases that cannot be used."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest

from batchrec.config import Layout
from batchrec.errors import ConfigError, RefusedError, StoreError
from batchrec.system import urls
from batchrec.targets import PublishedTable, open_target
from batchrec.targets import postgres as postgres_module
from batchrec.targets.postgres import PostgresTarget
from batchrec.targets.rows import open_rows
from batchrec.targets.stores import ATTEMPTS
from tests.support.recs import NIGHT, recs_rows, write_recs
from tests.support.target_contract import LATER, ONE, TWO, as_float32, publish
from tests.support.targets import Place
from tests.warehouse.table_targets import assert_is_one_plain_line, psql, read_postgres

# Within an option of PGOPTIONS.
OPTION_SPACE = r"\ "
# Publications to the table recs wait for this lock.
LOCK_RECS = """pg_advisory_xact_lock(hashtextextended('"public"."recs"', 0))"""
END_OTHERS = (
    "select pg_terminate_backend(pid) from pg_stat_activity "
    "where pid <> pg_backend_pid() and datname = current_database()"
)


@pytest.fixture
def place(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return Place(f"{postgres}?table=public.recs", read_postgres)


def test_a_companion_table_says_what_made_each_run_date(place: Place, postgres: str) -> None:
    first, second = publish(place, ONE), publish(place, TWO, LATER)
    runs = "select run_date, run_id, model_id, recs_sha256, n_rows from recs_runs order by run_date"
    assert psql(postgres, runs).splitlines() == [
        f"{NIGHT}|r1|m1|{first}|{len(ONE)}",
        f"{LATER}|r1|m2|{second}|{len(TWO)}",
    ]
    assert (
        psql(postgres, "select bool_and(published_at between now() - interval '1 day' and now()) from recs_runs")
        == "t\n"
    )


def test_the_rows_of_a_user_are_found_by_an_index(place: Place, postgres: str) -> None:
    publish(place, ONE)
    publish(place, TWO, LATER)
    definitions = psql(postgres, "select indexdef from pg_indexes where tablename = 'recs'").splitlines()
    assert [definition.rpartition("USING ")[2] for definition in definitions] == ["btree (run_date, user_id)"]


def test_nested_recommendations_are_queried_as_jsonb(place: Place, postgres: str) -> None:
    target = open_target(place.out, "nested")
    with target.replacing(write_recs(Path("recs.parquet"), ONE)):
        pass
    query = "select user_id, recommendations -> 0 ->> 'item_id', jsonb_array_length(recommendations) from recs"
    assert sorted(psql(postgres, query).splitlines()) == ["1|10|2", "2|12|1"]


def test_nested_scores_are_not_rounded_whatever_the_user_is_set_to(
    place: Place, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c extra_float_digits=0")
    with open_target(place.out, "nested").replacing(write_recs(Path("recs.parquet"), recs_rows({1: [10, 11, 12]}))):
        pass
    # The float32 next to a third.
    assert psql(postgres, "select recommendations -> 2 ->> 'score' from recs") == "0.33333334\n"


@pytest.mark.parametrize("name", ['recs; drop table "x"', 'a "quoted" name', "Größe"])
def test_names_are_quoted(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    psql(postgres, 'create schema "a ""schema"" of; mine"')
    schema = quote('a "schema" of; mine')
    place = Place(f"{postgres}?table={schema}.{quote(name)}", read_postgres)
    place.target.check_writable()
    sha256 = publish(place, ONE)
    place.target.check_writable()
    quoted = name.replace('"', '""')
    assert psql(postgres, f'select count(*) from "a ""schema"" of; mine"."{quoted}"') == f"{len(ONE)}\n"  # noqa: S608
    assert place.target.sha256() == sha256


@pytest.mark.parametrize("table", ["", ".recs", "public.", "a.b.c", "r" * 59, "public." + "é" * 30, "é" * 32 + ".recs"])
def test_a_name_that_is_not_one_of_a_table_is_refused(table: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        open_target(f"postgresql://host/db?table={table}")


def test_the_schema_is_public_if_none_is_named(place: Place, postgres: str) -> None:
    publish(Place(f"{postgres}?table=recs", read_postgres), ONE)
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_a_connection_that_is_lost_before_the_switch_is_made_again(place: Place, postgres: str) -> None:
    publish(place, ONE)
    with place.target.replacing(write_recs(Path("recs.parquet"), TWO)):
        psql(postgres, END_OTHERS)
    assert place.read() == {str(NIGHT): as_float32(TWO)}


def test_a_connection_that_is_lost_while_copying_is_made_again(
    place: Place, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = losing_connections(monkeypatch, postgres, times=1)
    publish(place, ONE)
    assert losses == [1]
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_a_writer_gives_up_after_some_lost_connections(
    place: Place, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(place, ONE)
    losses = losing_connections(monkeypatch, postgres, times=ATTEMPTS)
    with pytest.raises(StoreError, match=r"postgresql://.*: cannot be read or written: .*") as error:
        publish(place, TWO)
    assert_is_one_plain_line(str(error.value))
    assert losses == list(range(1, ATTEMPTS + 1))
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def losing_connections(monkeypatch: pytest.MonkeyPatch, database: str, times: int) -> list[int]:
    """End all connections to a database before the first row is copied, so many times; returns the number of each."""
    losses: list[int] = []

    @contextmanager
    def opened(table: PublishedTable, layout: Layout, **options: Any) -> Iterator[pa.RecordBatchReader]:
        with open_rows(table, layout, **options) as rows:

            def batches() -> Iterator[pa.RecordBatch]:
                if len(losses) < times:
                    losses.append(len(losses) + 1)
                    psql(database, END_OTHERS)
                yield from rows

            yield pa.RecordBatchReader.from_batches(rows.schema, batches())

    monkeypatch.setattr(postgres_module, "open_rows", opened)
    return losses


def test_a_commit_whose_answer_is_lost_is_repeated_without_harm(
    place: Place, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, switches = PostgresTarget._switch, list[int]()

    def lost(target: PostgresTarget, connection: Any, table: PublishedTable, replaced: str) -> None:
        switch(target, connection, table, replaced)
        switches.append(1)
        if len(switches) == 1:
            psql(postgres, END_OTHERS)
            connection.execute("select 1")

    monkeypatch.setattr(PostgresTarget, "_switch", lost)
    publish(place, ONE)
    assert len(switches) == 2
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_nothing_but_the_tables_stays(place: Place, postgres: str) -> None:
    publish(place, ONE)
    with pytest.raises(KeyError), place.target.replacing(write_recs(Path("recs.parquet"), TWO)):
        raise KeyError
    relations = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
    assert psql(postgres, relations + " order by 1").split() == ["recs", "recs_runs"]
    psql(postgres, END_OTHERS)
    assert psql(postgres, "select count(*) from pg_class where relname like 'batchrec%'") == "0\n"


def test_a_table_of_other_columns_is_found_before_any_work(place: Place, postgres: str) -> None:
    psql(postgres, "create table recs (id bigint, name text)")
    with pytest.raises(ConfigError, match=r"exists with columns id, name; expected history_digest, .*, user_id"):
        place.target.check_writable()


READ_ONLY = (
    "do $$begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end$$"
)
OBSTACLES = {
    "create materialized view recs as select * from other": "cannot change materialized view",
    "create table recs_runs (run_date date, note text)": "recs_runs.* exists with columns run_date, note; expected",
    READ_ONLY: "read-only transaction",
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_a_publication_could_not_change_is_found_before_any_work(
    obstacle: str, place: Place, postgres: str
) -> None:
    publish(Place(f"{postgres}?table=other", read_postgres), ONE)
    place.target.check_writable()
    psql(postgres, obstacle)
    with pytest.raises((ConfigError, StoreError), match=OBSTACLES[obstacle]) as error:
        place.target.check_writable()
    assert_is_one_plain_line(str(error.value))


def test_a_trigger_that_drops_rows_is_an_error_and_leaves_the_old_rows(place: Place, postgres: str) -> None:
    publish(place, ONE)
    psql(
        postgres,
        "create function keep() returns trigger language plpgsql as "
        "$$begin if new.user_id <> 3 then return new; end if; return null; end$$; "
        "create trigger keep before insert on recs for each row execute function keep()",
    )
    with pytest.raises(RefusedError, match=rf"holds 1 rows of {NIGHT} after 3 were inserted; .* trigger"):
        publish(place, TWO)
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_a_commit_waits_for_the_disk_also_if_the_user_is_set_not_to(place: Place, postgres: str) -> None:
    publish(place, ONE)
    psql(
        postgres,
        "create table waits as select current_setting('synchronous_commit') as setting; "
        "create function wait() returns trigger language plpgsql as "
        "$$begin insert into waits values (current_setting('synchronous_commit')); return null; end$$; "
        "create trigger wait after insert on recs execute function wait()",
    )
    for setting, expected in (("off", "on"), ("remote_write", "remote_write")):
        psql(postgres, f"alter role current_user set synchronous_commit = {setting}; truncate waits")
        try:
            publish(place, TWO)
        finally:
            psql(postgres, "alter role current_user reset synchronous_commit")
        assert psql(postgres, "select distinct setting from waits").splitlines() == [expected]


REFUSALS = {
    "alter table recs add primary key (user_id, rank)": "duplicate key .* Key .user_id, rank.=.1, 1. already exists",
    "alter table recs add check (item_id < 20) not valid": "violates check constraint .recs_item_id_check",
    "create table users (user_id bigint primary key); insert into users values (1), (2); "
    "alter table recs add foreign key (user_id) references users deferrable initially deferred": "not present in table",
    "create function no() returns trigger language plpgsql as $$begin raise exception 'no user %', new.user_id; end$$; "
    "create trigger no before insert on recs for each row execute function no()": "no user 1",
}


@pytest.mark.parametrize("statement", REFUSALS)
def test_rows_that_the_table_refuses_are_named_and_leave_the_old_rows(
    statement: str, place: Place, postgres: str
) -> None:
    publish(place, ONE)
    psql(postgres, statement)
    with pytest.raises(RefusedError, match=f"refuses the rows: .*{REFUSALS[statement]}.*Change the table") as error:
        publish(place, TWO, LATER)
    assert_is_one_plain_line(str(error.value))
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_texts_stay_the_same_in_a_database_of_another_encoding(place: Place, postgres: str) -> None:
    psql(postgres, "create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0")
    latin = postgres.rpartition("/")[0] + "/latin"
    table = recs_rows({"Müller": ["Größe"]})
    try:
        publish(Place(f"{latin}?table=recs", read_postgres), table)
        lengths = "select length(user_id), length(item_id), encode(convert_to(user_id, 'UTF8'), 'hex') from recs"
        assert psql(latin, lengths) == f"6|5|{'Müller'.encode().hex()}\n"
    finally:
        psql(postgres, "drop database latin with (force)")


@contextmanager
def meanwhile(postgres: str, action: Callable[[], None], *statements: str) -> Iterator[Any]:
    """Run an action while another run, in its transaction, has executed statements; yield its cursor, then commit."""
    waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    with dbapi.connect(postgres, autocommit=True) as other, other.cursor() as cursor, ThreadPoolExecutor(1) as thread:
        for statement in ("begin", "do $$begin perform " + LOCK_RECS + "; end$$", *statements):
            cursor.execute(statement)
        waiting = thread.submit(action)
        while psql(postgres, waits) == "0\n":
            assert not waiting.done()
        yield cursor
        cursor.execute("commit")
        waiting.result()


def test_a_check_waits_for_another_run_that_creates_the_table(place: Place, postgres: str) -> None:
    of_another = Place(f"{postgres}?table=other", read_postgres)
    publish(of_another, ONE)
    created = [f"create table recs{end} as table other{end}" for end in ("", "_runs")]
    with meanwhile(postgres, place.target.check_writable, *created):
        pass
    assert place.read() == {str(NIGHT): as_float32(ONE)}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_rollback_removes_what_it_has_waited_for(
    isolation: str, place: Place, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(place, ONE)
    published = write_recs(Path("recs.parquet"), ONE)
    monkeypatch.setenv("PGOPTIONS", f"-c default_transaction_isolation={isolation.replace(' ', OPTION_SPACE)}")

    def roll_back() -> None:
        with place.target.rolling_back(published):
            pass

    with meanwhile(postgres, roll_back) as cursor:
        for name in ("recs", "recs_runs"):
            cursor.execute(f"create temporary table later as select * from {name}")  # noqa: S608 - our names
            cursor.execute("update later set run_date = run_date + 1")
            cursor.execute(f"insert into {name} select * from later")  # noqa: S608 - our names
            cursor.execute("drop table later")
    assert place.read() == {str(NIGHT): as_float32(ONE)}
    assert place.target.sha256() == published.sha256


def test_a_signal_ends_the_wait_for_a_lock(place: Place, postgres: str) -> None:
    publish(place, ONE)
    write_recs(Path("two.parquet"), TWO)
    program = f"""
from datetime import date
from pathlib import Path
from batchrec.system.signals import stopped_by_signals
from batchrec.targets import PublishedTable, open_target
with stopped_by_signals(), open_target("{place.out}").replacing(
    PublishedTable(Path("two.parquet"), date(2026, 11, 24), "s", "r", "m")
):
    pass
"""
    waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("lock table recs")
        with subprocess.Popen([sys.executable, "-c", program]) as process:
            while psql(postgres, waits) == "0\n":
                assert process.poll() is None
            process.terminate()
            assert process.wait(20) == 128 + signal.SIGTERM
        cursor.execute("rollback")
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_a_wrong_password_is_named_without_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "a-secret-of-somebody")
    for call in (place.target.check_writable, place.target.sha256):
        with pytest.raises(StoreError, match=r"postgresql://.*password authentication failed") as error:
            call()
        assert "a-secret-of-somebody" not in str(error.value)
        assert_is_one_plain_line(str(error.value))


def test_a_missing_database_is_named(postgres: str) -> None:
    out = f"{postgres}_missing?table=recs"
    with pytest.raises(StoreError, match=r'postgresql://.*_missing.*: .*database "db_\w+_missing" does not exist'):
        open_target(out).check_writable()


def test_a_server_that_does_not_answer_is_named() -> None:
    pytest.importorskip("adbc_driver_postgresql", reason="the warehouse extra is not installed")
    with pytest.raises(StoreError, match=r"postgresql://nobody@127.0.0.1:1/db\?table=recs: .*Connection refused"):
        open_target("postgresql://nobody@127.0.0.1:1/db?table=recs").check_writable()


@pytest.mark.parametrize("variable", ["", "2"])
def test_a_server_that_hangs_is_given_up(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adbc_driver_postgresql", reason="the warehouse extra is not installed")
    monkeypatch.setattr(urls, "_PATIENCE_S", 3600 if variable else 2)
    if variable:
        monkeypatch.setenv("PGCONNECT_TIMEOUT", variable)
    with socket.create_server(("127.0.0.1", 0)) as server:
        out = f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/db?table=recs"
        with pytest.raises(StoreError, match="timeout expired"):
            open_target(out).check_writable()


def test_a_missing_schema_is_named(postgres: str) -> None:
    with pytest.raises(StoreError, match=r"missing for this user: schema shop\. Create it, or grant it"):
        open_target(f"{postgres}?table=shop.recs").check_writable()


@pytest.fixture
def weak(place: Place, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return a place in a schema `shop` for a user without rights there; both users' passwords are in .pgpass."""
    name = "weak_" + postgres.rpartition("_")[2]
    password_file = tmp_path / ".pgpass"
    password_file.write_text(f"*:*:*:{name}:weak\n*:*:*:*:{os.environ['PGPASSWORD']}\n", encoding="utf-8")
    password_file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(password_file))
    monkeypatch.delenv("PGPASSWORD")
    psql(postgres, f"create role {name} login password 'weak'")
    psql(postgres, "create schema shop")
    yield Place(f"postgresql://{name}@{postgres.partition('@')[2]}?table=shop.recs", read_postgres)
    psql(postgres, f"drop owned by {name}")
    psql(postgres, f"drop role {name}")


def test_missing_rights_are_named_before_any_work(weak: Place, postgres: str) -> None:
    name = weak.out.partition("@")[0].removeprefix("postgresql://")
    steps = [
        (None, "USAGE on schema shop, CREATE on schema shop"),
        (f"grant usage on schema shop to {name}", "CREATE on schema shop"),
        (f"grant create on schema shop to {name}", None),
    ]
    assert_missing(weak, postgres, steps)
    publish(Place(f"{postgres}?table=shop.recs", read_postgres), ONE)
    rights = [f"{right} on shop.recs{suffix}" for suffix in ("", "_runs") for right in ("SELECT", "INSERT", "DELETE")]
    steps = [
        (f"revoke create on schema shop from {name}", ", ".join(rights)),
        (f"grant select, insert, delete on shop.recs_runs to {name}", ", ".join(rights[:3])),
        (f"grant select, insert on shop.recs to {name}", rights[2]),
        (f"grant delete on shop.recs to {name}", None),
    ]
    assert_missing(weak, postgres, steps)
    publish(weak, TWO)
    assert weak.read() == {str(NIGHT): as_float32(TWO)}


def assert_missing(weak: Place, postgres: str, steps: list[tuple[str | None, str | None]]) -> None:
    """Assert that after each statement these rights are missing, in any order."""
    for statement, missing in steps:
        if statement is not None:
            psql(postgres, statement)
        if missing is None:
            weak.target.check_writable()
            continue
        with pytest.raises(StoreError, match=r"missing for this user: .*\. Create it, or grant it$") as error:
            weak.target.check_writable()
        named = str(error.value).partition("for this user: ")[2].partition(". Create")[0]
        assert sorted(named.split(", ")) == sorted(missing.split(", "))


def test_a_right_that_is_lost_while_publishing_leaves_the_old_rows(weak: Place, postgres: str) -> None:
    name = weak.out.partition("@")[0].removeprefix("postgresql://")
    publish(Place(f"{postgres}?table=shop.recs", read_postgres), ONE)
    psql(postgres, f"grant usage on schema shop to {name}; grant all on shop.recs, shop.recs_runs to {name}")
    with (
        pytest.raises(StoreError, match=r"postgresql://.*permission denied for table recs") as error,
        weak.target.replacing(write_recs(Path("recs.parquet"), TWO)),
    ):
        psql(postgres, f"revoke insert on shop.recs from {name}")
    assert_is_one_plain_line(str(error.value))
    assert Place(f"{postgres}?table=shop.recs", read_postgres).read() == {str(NIGHT): as_float32(ONE)}
