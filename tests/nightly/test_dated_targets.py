"""run and rollback with a target that holds several run dates."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb
import fsspec
import pytest

from batchrec.errors import ConfigError, NothingToDo, RefusedError, StoreError
from batchrec.nightly import publish_steps
from batchrec.nightly.archive import Archive
from batchrec.nightly.publish_steps import Publication
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import NightReport
from batchrec.nightly.rollback import roll_back
from batchrec.nightly.run import plan
from batchrec.system.atomic import replacing_folder
from tests.support.models import run_cli, training_histories
from tests.support.nights import FIRST, Company, later, metric, night
from tests.support.params import slow_except
from tests.support.targets import Place, read_duckdb, read_folder, read_store_folder

READERS = {"memory": read_store_folder, "duckdb": read_duckdb, "folder": read_folder}


@pytest.fixture(params=slow_except(READERS.keys(), "folder"))
def dated(request: pytest.FixtureRequest, shop: Company, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(shop.folder)
    outs = {"folder": "recs/", "memory": "memory://bucket/recs/", "duckdb": "duckdb://recs.db?table=recs"}
    shop.target = outs[request.param]
    yield Place(shop.target, READERS[request.param])
    fsspec.filesystem("memory").store.clear()


def assert_holds(place: Place, shop: Company, *nights: date) -> None:
    """Assert that the target holds the rows of these nights as the archive has them."""
    assert place.read() == {str(run_date): shop.rows(run_date) for run_date in nights}


def test_each_night_adds_its_date_and_a_rollback_removes_it(dated: Place, shop: Company) -> None:
    shop.run(0)
    shop.write_log(later())
    shop.run(1)
    assert shop.rows(FIRST) != shop.rows(night(1))
    assert_holds(dated, shop, FIRST, night(1))
    assert shop.archive.current_nights() == [night(1)]
    assert metric(shop, "out_is_newest") == 1
    with pytest.raises(NothingToDo):
        shop.run(1)
    assert roll_back(shop.archive) == FIRST
    assert_holds(dated, shop, FIRST)
    with pytest.raises(NothingToDo, match="stays rolled back"):
        shop.run(1)
    assert_holds(dated, shop, FIRST)
    shop.write_log(later(6))
    shop.run(2)
    assert_holds(dated, shop, FIRST, night(2))


def test_a_night_that_its_target_cannot_take_is_not_decided(dated: Place, shop: Company) -> None:
    shop.run(0)
    shop.write_log({f"00{user}": items for user, items in training_histories().items()})
    with pytest.raises(ConfigError, match=r"user_id .*new rows"):
        shop.run(1, gate_new_id_types=True)
    assert shop.archive.decisions.dates() == []
    shop.write_log(later())
    shop.run(2)
    assert_holds(dated, shop, FIRST, night(2))


@pytest.fixture
def unique(shop: Company, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Publish a night to a table to which somebody then gives a key that the next one breaks."""
    monkeypatch.chdir(shop.folder)
    shop.target = "duckdb://recs.db?table=recs"
    shop.run(0)
    run_sql("create unique index one_list_per_user on recs (user_id, rank)")
    shop.write_log(later())
    return Place(shop.target, read_duckdb)


def run_sql(statement: str) -> None:
    with duckdb.connect("recs.db") as con:
        con.execute(statement)


def test_a_night_whose_rows_are_refused_does_not_keep_later_ones_from_being_published(
    unique: Place, shop: Company
) -> None:
    for number in (1, 1, 2):
        with pytest.raises(RefusedError, match=r"^duckdb://.*: refuses the rows: .*Duplicate key.*Change the table"):
            shop.run(number)
        assert shop.archive.decisions.dates() == []
        assert_holds(unique, shop, FIRST)
    run_sql("drop index one_list_per_user")
    shop.run(3)
    assert_holds(unique, shop, FIRST, night(3))


def test_a_decided_night_that_its_target_refuses_is_left_out(
    unique: Place, shop: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop.run_killed(monkeypatch, Publication, "publish", night=1)
    assert shop.archive.decisions.dates() == [night(1)]
    with pytest.raises(RefusedError):
        shop.run(2)
    assert f"night {night(1)} is not published: duckdb://" in caplog.text
    assert shop.archive.decisions.dates() == []
    # The same of other columns.
    run_sql("drop index one_list_per_user")
    shop.run_killed(monkeypatch, Publication, "publish", night=3)
    run_sql("alter table recs alter user_id type varchar")
    with pytest.raises(RefusedError, match="column user_id is VARCHAR"):
        shop.run(4)
    assert f"night {night(3)} is not published: duckdb://" in caplog.text
    run_sql("alter table recs alter user_id type bigint")
    shop.run(5)
    assert_holds(unique, shop, FIRST, night(5))


def test_an_earlier_night_replaces_only_its_own_date(
    dated: Place, shop: Company, caplog: pytest.LogCaptureFixture
) -> None:
    shop.run(0)
    shop.write_log(later())
    shop.run(2)
    shop.write_log(later(6))
    assert plan(shop.jobs, shop.run_config, night(1)).publishes[1:] == [str(dated.target)]
    shop.run(1)
    assert_holds(dated, shop, FIRST, night(1), night(2))
    assert shop.archive.current_nights() == [night(2)]
    assert "stay as they are, and so does the model in use: a later night is published" in caplog.text


def test_a_new_target_that_gets_no_rows_of_an_earlier_night_is_named(
    shop: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(shop.folder)
    for number in range(2):
        shop.run(number)
    shop.target = "new/"
    shop.write_log(later())
    shop.run(0)
    assert not Path("new").exists()
    assert "nothing is published at new/: it holds no later night" in caplog.text
    shop.run(1)
    shop.write_log(later(6))
    shop.run(0)
    assert_holds(Place("new/", read_folder), shop, FIRST, night(1))


@pytest.mark.slow
def test_an_earlier_night_does_not_undo_a_rollback(dated: Place, shop: Company) -> None:
    for number in range(3):
        shop.write_log(later(5 + number))
        shop.run(number)
    roll_back(shop.archive, FIRST)
    shop.write_log(later(9))
    shop.run(1)
    assert_holds(dated, shop, FIRST)


@pytest.mark.parametrize(
    ("step", "is_newest"),
    # The model in use is switched by the newest night only.
    [
        pytest.param("use", True, marks=pytest.mark.slow),
        ("folder", True),
        ("folder", False),
        ("clean_up", True),
        pytest.param("clean_up", False, marks=pytest.mark.slow),
    ],
)
def test_a_killed_publication_is_finished(
    dated: Place, shop: Company, monkeypatch: pytest.MonkeyPatch, step: str, is_newest: bool
) -> None:
    shop.run(0)
    killed, nights = (1, [FIRST, night(1)]) if is_newest else (5, [FIRST, night(5), night(6)])
    if not is_newest:
        shop.write_log(later(3))
        shop.run(6)
    shop.write_log(later())
    if step == "folder":
        with monkeypatch.context() as patch:
            patch.setattr(publish_steps, "replacing_folder", _killed_after_it)
            with pytest.raises(KeyboardInterrupt):
                shop.run(killed)
        # The target commits after the night's folder is switched.
        assert str(night(killed)) not in dated.read()
        assert night(killed) in shop.archive.dates()
    else:
        home = ModelRegistry if step == "use" else Archive
        shop.run_killed(monkeypatch, home, step, night=killed)
    shop.run(killed)
    assert_holds(dated, shop, *nights)
    assert shop.archive.current_nights() == nights[-1:]
    assert shop.archive.decisions.dates() == []


@contextmanager
def _killed_after_it(out: Path, marked_by: Sequence[str]) -> Iterator[Path]:
    with replacing_folder(out, marked_by) as folder:
        yield folder
    raise KeyboardInterrupt


def test_a_store_that_fails_is_found_before_any_work_and_reported(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.target = "duckdb://recs.db?table=recs"
    monkeypatch.chdir(shop.folder)
    Path("recs.db").write_bytes(b"no database" * 1000)
    with pytest.raises(
        StoreError, match=r"^duckdb://recs.db\?table=recs: cannot be opened: .*not a valid DuckDB"
    ) as error:
        shop.run()
    assert not shop.archive.work(FIRST).exists()
    assert not shop.trainings
    assert isinstance(error.value.report, NightReport)
    assert metric(shop, "exit_code") == 8


def test_rollback_and_score_take_target_and_layout_from_the_file(
    dated: Place, shop: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.scoring = replace(shop.scoring, layout="nested")
    shop.run(0)
    shop.write_log(later())
    shop.run(1)
    Path("batchrec.toml").write_text(f'[score]\nout = "{dated.out}"\nlayout = "nested"\n', encoding="utf-8")
    assert run_cli("rollback") == 0
    assert f"{dated.target}: now the table of {FIRST}" in capsys.readouterr().out
    assert list(dated.read()) == [str(FIRST)]
    assert {name for row in dated.read()[str(FIRST)] for name in row} == {
        "user_id",
        "history_digest",
        "model_id",
        "recommendations",
    }
    assert shop.archive.current_nights() == [FIRST]
