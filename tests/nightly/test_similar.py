"""run: the table of similar items is published with that of recommendations, or neither is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig, SimilarConfig, TrainingConfig
from batchrec.errors import ConfigError, GateError, ModelError, NothingToDo
from batchrec.nightly import night as night_module
from batchrec.nightly import publish_steps
from batchrec.nightly.archive import SIMILAR, Archive
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import NightReport
from batchrec.nightly.rollback import roll_back
from batchrec.nightly.run import plan, run
from batchrec.system.atomic import replacing_folder
from batchrec.targets import LocalFile, PublishedTable
from tests.support.models import run_cli
from tests.support.nights import FIRST, LENIENT, Company, ids, later, night, rows_of
from tests.support.params import slow_except
from tests.support.targets import read_store_folder

WITH_SIMILAR = replace(LENIENT, similar=True)


@pytest.fixture
def pair(shop: Company) -> Iterator[Company]:
    """A company that publishes both tables. Every seventh night trains another model, which changes both of them."""
    shop.config = WITH_SIMILAR
    yield shop
    fsspec.filesystem("memory").store.clear()


def similar_rows(shop: Company, number: int | None = None) -> list[dict[str, Any]]:
    """Return the rows at the target, or of a night."""
    return rows_of(shop.folder / SIMILAR if number is None else shop.archive.night(night(number)) / SIMILAR)


def assert_published(shop: Company, number: int) -> None:
    """Assert that readers read both tables of one night, and that both are of the model in use then."""
    assert shop.rows() == shop.rows(night(number))
    assert similar_rows(shop) == similar_rows(shop, number)
    assert {row["model_id"] for row in similar_rows(shop)} == {row["model_id"] for row in shop.rows()}


def test_a_night_publishes_and_keeps_both_tables(pair: Company) -> None:
    report = pair.run()
    assert_published(pair, 0)
    assert len(similar_rows(pair)) == 2 * 40
    assert list(report.stages) == ["build-sequences", "train", "evaluate-new", "score", "similar", "check", "publish"]
    assert report.stages["similar"]["rows"] == 80
    figures = {check["figure"]: check["value"] for check in report.checks if check["gate"] == "similar"}
    assert figures["share of items with a list"] == 1
    assert figures["items similar to themselves"] == 0
    assert 'batchrec_stage_rows{stage="similar"} 80.0' in (pair.folder / "metrics.prom").read_text()
    with pytest.raises(NothingToDo):
        pair.run()


def test_a_night_that_is_not_asked_makes_no_similar_items(shop: Company) -> None:
    assert "similar" not in shop.run().stages
    assert not (shop.folder / SIMILAR).exists()
    assert not (shop.archive.night(FIRST) / SIMILAR).exists()


@pytest.mark.slow
def test_a_published_night_is_published_again_if_its_similar_items_are_missing(pair: Company) -> None:
    pair.config = LENIENT
    pair.run()
    pair.config = WITH_SIMILAR
    assert plan(pair.jobs, pair.run_config, FIRST).publishes == [
        str(pair.archive.table(FIRST)),
        *map(str, pair.archive.targets),
    ]
    pair.run()
    assert_published(pair, 0)
    (pair.folder / SIMILAR).unlink()
    pair.run()
    assert_published(pair, 0)
    with pytest.raises(NothingToDo):
        pair.run()


@contextmanager
def killed_after_folder(out: Path, marked_by: Sequence[str]) -> Iterator[Path]:
    with replacing_folder(out, marked_by) as folder:
        yield folder
    raise KeyboardInterrupt


def run_killed_before_recs(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Run what is killed when everything but the table of recommendations is switched."""
    replacing = LocalFile.replacing

    @contextmanager
    def killed(target: LocalFile, table: PublishedTable) -> Iterator[None]:
        with replacing(target, table):
            yield
            if target.file.name == "recs.parquet":
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalFile, "replacing", killed)
        with pytest.raises(KeyboardInterrupt):
            action()


def kill(shop: Company, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    """Run a night that is killed at a step of its publication."""
    if step == "between the tables":
        run_killed_before_recs(monkeypatch, lambda: shop.run(number))
        assert similar_rows(shop) == similar_rows(shop, number)
        assert shop.rows() == shop.rows(FIRST)
    elif step == "after the folder":
        with monkeypatch.context() as patch:
            patch.setattr(publish_steps, "replacing_folder", killed_after_folder)
            with pytest.raises(KeyboardInterrupt):
                shop.run(number)
        assert similar_rows(shop) == similar_rows(shop, 0)
    else:
        home, name = {"before the model": (ModelRegistry, "use"), "before the end": (Archive, "clean_up")}[step]
        shop.run_killed(monkeypatch, home, name, night=number)


STEPS = ["before the model", "after the folder", "between the tables", "before the end"]


@pytest.mark.parametrize("step", slow_except(STEPS, "between the tables"))
@pytest.mark.parametrize("following", slow_except([7, 8], 8))
def test_a_killed_publication_is_finished_with_both_tables(
    pair: Company, monkeypatch: pytest.MonkeyPatch, step: str, following: int
) -> None:
    pair.run()
    kill(pair, monkeypatch, step, 7)
    pair.write_log(later())
    pair.run(following)
    assert pair.archive.dates() == [FIRST, *sorted({night(7), night(following)})]
    assert similar_rows(pair, 0)[0]["model_id"] == ids()[0]
    assert similar_rows(pair, 7)[0]["model_id"] == ids()[1]
    assert_published(pair, following)
    assert pair.archive.decisions.dates() == []


@pytest.mark.parametrize("stage", slow_except(["similar", "measure_similar"], "similar"))
def test_a_night_killed_while_it_finds_similar_items_publishes_nothing_and_resumes(
    pair: Company, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    pair.run()
    before = pair.state(), similar_rows(pair)
    pair.run_killed(monkeypatch, night_module, stage, night=7)
    assert (pair.state(), similar_rows(pair)) == before
    assert pair.run(7).resumed
    assert_published(pair, 7)


@pytest.mark.slow
def test_a_decided_night_whose_similar_items_are_damaged_is_made_again(
    pair: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.run_killed(monkeypatch, ModelRegistry, "use")
    (pair.archive.work(FIRST) / SIMILAR).write_bytes(b"x")
    assert "similar" in pair.run().stages
    assert_published(pair, 0)


def test_a_decided_night_that_lost_its_similar_items_publishes_no_recommendations_either(
    pair: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.run()
    kill(pair, monkeypatch, "after the folder", 7)
    for folder in (pair.archive.work(night(7)), pair.archive.night(night(7))):
        (folder / SIMILAR).unlink()
    with pytest.raises(GateError):
        pair.run(8, gate_min_full_lists=1.0, gate_min_users=1.0, gate_min_similar=1.0, gate_max_top_items=0.0)
    assert_published(pair, 0)


def test_a_decided_night_is_finished_without_its_similar_items_if_these_are_no_longer_asked_for(
    pair: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.run_killed(monkeypatch, ModelRegistry, "use")
    pair.config = LENIENT
    pair.run()
    assert pair.rows() == pair.rows(FIRST)
    assert not (pair.folder / SIMILAR).exists()
    assert similar_rows(pair, 0)


@pytest.mark.slow
def test_a_rollback_puts_both_tables_back_even_if_it_is_killed_in_between(
    pair: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 7, 14):
        pair.run(number)
    assert roll_back(pair.archive) == night(7)
    assert_published(pair, 7)
    run_killed_before_recs(monkeypatch, lambda: roll_back(pair.archive))
    assert similar_rows(pair) == similar_rows(pair, 0)
    assert pair.rows() == pair.rows(night(7))
    assert roll_back(pair.archive) == FIRST
    assert_published(pair, 0)


def test_a_rollback_to_a_night_without_similar_items_leaves_them(
    pair: Company, caplog: pytest.LogCaptureFixture
) -> None:
    pair.config = LENIENT
    pair.run()
    pair.config = WITH_SIMILAR
    pair.run(7)
    assert roll_back(pair.archive) == FIRST
    assert pair.rows() == pair.rows(FIRST)
    assert similar_rows(pair) == similar_rows(pair, 7)
    assert f"similar.parquet stays as it is: night {FIRST} has no intact table for it" in caplog.text


@pytest.mark.slow
def test_an_earlier_night_does_not_switch_similar_items(pair: Company) -> None:
    pair.run()
    pair.run(14)
    pair.write_log(later())
    pair.run(7)
    assert_published(pair, 14)
    assert similar_rows(pair, 7)


def test_the_gate_refuses_a_table_in_which_few_items_have_a_list(pair: Company) -> None:
    pair.run()
    before = pair.state(), similar_rows(pair)
    (pair.folder / "allow.csv").write_text("item_id\n", encoding="utf-8")
    pair.similar = replace(pair.similar, allow=str(pair.folder / "allow.csv"), allow_empty_rules=True)
    with pytest.raises(
        GateError, match=r"similar gate: rows is 0, expected at least 1; share of items with a list is 0"
    ):
        pair.run(7)
    assert (pair.state(), similar_rows(pair)) == before


@pytest.mark.slow
def test_the_gate_compares_rule_tables_with_those_of_last_night(pair: Company) -> None:
    block = pair.folder / "block.csv"
    block.write_text("item_id\n" + "".join(f"{item}\n" for item in range(1000, 1010)), encoding="utf-8")
    pair.similar = replace(pair.similar, block=str(block))
    pair.run()
    assert not {row["similar_item_id"] for row in similar_rows(pair)} & set(range(1000, 1010))
    block.write_text("item_id\n1000\n", encoding="utf-8")
    with pytest.raises(GateError, match="similar gate: rows of --block is 1, expected at least 5"):
        pair.run(7)


def test_lists_of_items_that_only_recommendations_keep_get_a_warning(
    pair: Company, caplog: pytest.LogCaptureFixture
) -> None:
    block = pair.folder / "block.csv"
    block.write_text("item_id\n1000\n", encoding="utf-8")
    pair.scoring = replace(pair.scoring, block=str(block))
    pair.run()
    assert "--block of [score] is not in [similar], so similar items do not keep it" in caplog.text


@pytest.mark.parametrize(
    ("needed_by", "option", "jobs"),
    [
        (
            "similar --method co-occurrence",
            "--blend none",
            {"similar": SimilarConfig(method="co-occurrence"), "training": TrainingConfig(blend="none")},
        ),
        (
            "similar --method vectors",
            "--max-epochs 0",
            {"similar": SimilarConfig(method="vectors"), "training": TrainingConfig(max_epochs=0)},
        ),
        (
            "score --diversity",
            "--max-epochs 0",
            {"scoring": ScoringConfig(diversity=0.5), "training": TrainingConfig(max_epochs=0)},
        ),
    ],
)
def test_models_that_will_lack_what_a_table_needs_are_refused_before_any_work(
    pair: Company, needed_by: str, option: str, jobs: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"{needed_by}: a model of train {option} does not store what it needs"):
        run(replace(pair.jobs, **jobs), pair.run_config, FIRST)
    assert not pair.archive.work(FIRST).exists()


def test_a_model_in_use_that_lacks_what_a_table_needs_is_retrained(pair: Company) -> None:
    pair.run()
    pair.similar = SimilarConfig(method="co-occurrence")
    reason = "the model in use was trained with --blend none and does not store what similar --method co-occurrence"
    assert str(plan(pair.jobs, pair.run_config, night(1)).trains).startswith(reason)
    # The new model is another one of these tests' own, which store no neighbours either.
    with pytest.raises(ModelError, match="stores no neighbours of items") as error:
        pair.run(1)
    assert len(pair.trainings) == 2
    report = error.value.report
    assert isinstance(report, NightReport)
    assert str(report.trained_because).startswith(reason)


@pytest.mark.parametrize(
    ("similar_out", "similar", "expected"),
    [
        ("recs.parquet", {}, "is also score --out, or one is within the other. Pass another similar --out"),
        ("./recs.parquet", {}, "is also score --out, or one is within the other. Pass another similar --out"),
        ("block.csv", {"block": "block.csv"}, "is also an input. Pass another similar --out"),
        ("nights/", {}, "is also the folder of --nights or --models. Pass another similar --out"),
    ],
)
def test_a_place_for_similar_items_that_is_taken_is_refused(
    pair: Company, monkeypatch: pytest.MonkeyPatch, similar_out: str, similar: dict[str, Any], expected: str
) -> None:
    monkeypatch.chdir(pair.folder)
    (pair.folder / "block.csv").write_text("item_id\n1000\n", encoding="utf-8")
    pair.target, pair.similar_target = "recs.parquet", similar_out
    pair.similar = SimilarConfig(method="vectors", **similar)
    with pytest.raises(ConfigError) as error:
        pair.run()
    assert str(error.value).endswith(expected)


@pytest.mark.parametrize(
    ("out", "similar_out"),
    [
        ("tables/", "tables/similar.parquet"),
        ("tables/recs.parquet", "tables/"),
        ("memory://bucket/tables/", "memory://bucket/tables/similar/"),
    ],
)
def test_a_table_within_the_folder_of_the_other_is_refused(
    pair: Company, monkeypatch: pytest.MonkeyPatch, out: str, similar_out: str
) -> None:
    monkeypatch.chdir(pair.folder)
    pair.target, pair.similar_target = out, similar_out
    with pytest.raises(ConfigError, match="or one is within the other"):
        pair.run()


@pytest.mark.slow
def test_both_tables_may_be_in_one_database(pair: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pair.folder)
    pair.target, pair.similar_target = "duckdb://shop.db?table=recs", "duckdb://shop.db?table=similar_items"
    pair.run()
    pair.run(7)
    with duckdb.connect("shop.db", read_only=True) as con:
        for table, file in (("recs", "recs.parquet"), ("similar_items", SIMILAR)):
            for number in (0, 7):
                kept = con.table(table).filter(f"run_date = '{night(number)}'").order("all").fetchall()
                rows = duckdb.read_parquet(str(pair.archive.night(night(number)) / file)).order("all").fetchall()
                assert [row[:-1] for row in kept] == rows
    roll_back(pair.archive)
    with duckdb.connect("shop.db", read_only=True) as con:
        for table in ("recs", "similar_items"):
            assert con.table(table).project("run_date").distinct().fetchall() == [(FIRST,)]


def test_a_dated_target_of_similar_items_holds_every_night(pair: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.similar_target = "memory://bucket/similar/"
    for number in (0, 14):
        pair.run(number)
    assert list(read_store_folder(pair.similar_target)) == [str(FIRST), str(night(14))]
    assert read_store_folder(pair.similar_target)[str(FIRST)] == similar_rows(pair, 0)
    roll_back(pair.archive)
    assert list(read_store_folder(pair.similar_target)) == [str(FIRST)]


def test_options_come_from_the_tables_run_and_similar(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.folder)
    Path("batchrec.toml").write_text(
        """
train.n-layers = 1
[run]
similar = true
gate = { min-users = 0.0, min-full-lists = 0.0, max-top-items = 1.0, min-overlap = 0.0 }
[score]
top-k = 3
device = "cpu"
[similar]
method = "vectors"
top-k = 4
out = "alike.parquet"
""",
        encoding="utf-8",
    )
    for number in (0, 7):
        assert run_cli("run", "--run-date", night(number)) == 0
    assert pq.read_metadata("alike.parquet").num_rows == 4 * 40
    second = rows_of(Path("alike.parquet"))
    assert run_cli("rollback") == 0
    first = rows_of(Path("alike.parquet"))
    assert first == rows_of(shop.archive.night(FIRST) / SIMILAR)
    assert first != second
