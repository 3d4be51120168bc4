"""similar: the table of similar items, its rules, and its errors."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load

from batchrec.config import ScoringConfig, SimilarConfig, SimilarMethod
from batchrec.errors import ConfigError, InputError, ModelError
from batchrec.model.directory import load_model
from batchrec.scoring.score import score
from batchrec.similarity import similar as job
from batchrec.similarity.publish import similar_to
from batchrec.similarity.similar import SimilarReport, similar
from tests.support.models import (
    names_in,
    run_cli,
    string_model,
    trained_model,
    training_histories,
    training_sequences,
    write_sequences,
)
from tests.support.shared import made_once
from tests.support.similar import lists_of, write_model_of
from tests.support.targets import read_folder, read_store_folder

# Two series of films that nobody mixes, one user who took a film of neither, and a film that only one user took.
SERIES = {
    **dict(enumerate([[1, 2, 3], [1, 2, 3, 4], [2, 3, 4], [11, 12], [11, 12, 13], [12, 13, 11]])),
    6: [30],
    7: [31, 1],
}


@pytest.fixture
def series() -> Path:
    return made_once("series-model", lambda folder: write_model_of(SERIES, folder))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, and an object store in memory that is empty again after the test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    fsspec.filesystem("memory").store.clear()


def made(model: Path, folder: Path, **options: Any) -> tuple[SimilarReport, list[dict[str, Any]]]:
    report = similar(model, SimilarConfig(run_date="2026-11-24", **options), folder / "similar.parquet")
    rows: list[dict[str, Any]] = pq.read_table(folder / "similar.parquet").to_pylist()
    return report, rows


def write_rows(path: Path, header: str, *rows: str) -> str:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_partners_are_found_in_a_log_of_pure_co_occurrence(tmp_path: Path) -> None:
    chance = Random(5)  # noqa: S311 - a sample, no secret
    # Items of one of 8 baskets of 6.
    histories = {
        user: chance.sample(range(basket * 6, basket * 6 + 6), 4)
        for user in range(200)
        for basket in [chance.randrange(8)]
    }
    model = write_model_of(histories, tmp_path / "model")
    methods: list[SimilarMethod] = ["co-occurrence", "blended"]
    for method in methods:
        _, rows = made(model, tmp_path, method=method, top_k=5)
        for item, others in lists_of(rows).items():
            assert set(others) == {partner for partner in range(item // 6 * 6, item // 6 * 6 + 6) if partner != item}


def test_by_co_occurrence_items_without_partners_have_no_row(series: Path, tmp_path: Path) -> None:
    report, rows = made(series, tmp_path, method="co-occurrence", top_k=3)
    lists = lists_of(rows)
    assert {item: set(others) for item, others in lists.items()} == {
        1: {2, 3, 31},
        2: {1, 3, 4},
        3: {1, 2, 4},
        4: {1, 2, 3},
        11: {12, 13},
        12: {11, 13},
        13: {11, 12},
        31: {1},
    }
    # One user has both; three have item 1, and one has item 31.
    assert [row["score"] for row in rows if row["item_id"] == 31] == pytest.approx([1 / (3**0.5 + 3)])
    assert (report.items, report.items_with_list, report.items_with_fewer_than_top_k) == (9, 8, 5)
    assert report.rows_by_source == {"vectors": 0, "co-occurrence": report.rows}


def test_by_vectors_the_order_is_that_of_the_angles(series: Path, tmp_path: Path) -> None:
    _, rows = made(series, tmp_path, method="vectors", top_k=4)
    loaded = load_model(series)
    vectors = load(loaded.weights)["item_embeddings.weight"][2:].astype(np.float64)
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = loaded.vocabulary.item_ids.to_pylist()
    for item, others in lists_of(rows).items():
        cosines = dict(zip(items, vectors @ vectors[items.index(item)], strict=True))
        best = sorted((other for other in items if other != item), key=lambda other: -cosines[other])[:4]
        assert others == best
        own = [row for row in rows if row["item_id"] == item]
        assert [row["score"] for row in own] == pytest.approx([cosines[other] for other in best], abs=1e-5)
        assert {row["source"] for row in own} == {"vectors"}


def test_blended_lists_are_full_and_say_what_carried_a_row(series: Path, tmp_path: Path) -> None:
    report, rows = made(series, tmp_path, top_k=5)
    assert report.items_with_list == report.items == 9
    assert report.rows == 45
    shared = {(item, other) for history in SERIES.values() for item in history for other in history if item != other}
    for row in rows:
        is_shared = (row["item_id"], row["similar_item_id"]) in shared
        assert row["source"] == ("co-occurrence" if is_shared else "vectors")
    assert report.rows_by_source["co-occurrence"] == len(shared)


def test_the_table_follows_the_contract(tmp_path: Path) -> None:
    catalogue = write_rows(tmp_path / "films.csv", "movieId,title", "item-1001,One", "item-1002,Two")
    report, rows = made(string_model(), tmp_path, method="vectors", top_k=3, items=catalogue)
    schema = pq.read_schema(tmp_path / "similar.parquet")
    assert [(field.name, field.type, field.nullable) for field in schema] == [
        ("item_id", pa.string(), False),
        ("rank", pa.int32(), False),
        ("similar_item_id", pa.string(), False),
        ("score", pa.float32(), False),
        ("source", pa.string(), False),
        ("model_id", pa.string(), False),
        ("title", pa.string(), True),
    ]
    assert schema.metadata[b"batchrec.contract"] == b"similar/1"
    made_by = {"model_id": report.model_id, "method": "vectors", "top_k": 3}
    assert json.loads(schema.metadata[b"batchrec.made_by"]) == made_by
    assert b"batchrec.seal" in pq.ParquetFile(tmp_path / "similar.parquet").metadata.metadata
    ordered = sorted(f"item-{item}" for item in range(1000, 1040))
    assert [row["item_id"] for row in rows] == [item for item in ordered for _ in range(3)]
    assert [row["rank"] for row in rows] == [1, 2, 3] * 40
    titles = {"item-1001": "One", "item-1002": "Two"}
    assert [row["title"] for row in rows] == [titles.get(row["similar_item_id"]) for row in rows]
    assert all(row["item_id"] != row["similar_item_id"] for row in rows)


def test_row_groups_change_no_row(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows = made(series, tmp_path)
    monkeypatch.setattr(job, "_ROW_GROUP", 1)
    monkeypatch.setattr("batchrec.similarity.lists._SCORES_AT_A_TIME", 1)
    again = made(series, tmp_path)[1]
    assert lists_of(again) == lists_of(rows)
    assert [row["score"] for row in again] == pytest.approx([row["score"] for row in rows], abs=2e-6)
    assert pq.ParquetFile(tmp_path / "similar.parquet").num_row_groups == 9


def test_rules_say_what_a_list_may_hold_and_not_which_item_has_one(series: Path, tmp_path: Path) -> None:
    block = write_rows(tmp_path / "block.csv", "item_id,valid_to", "2,", "3,2026-11-23", "12,2026-11-24")
    allow = write_rows(tmp_path / "allow.csv", "item_id", "1", "2", "3", "4", "11", "12")
    methods: list[SimilarMethod] = ["blended", "co-occurrence", "vectors"]
    for method in methods:
        report, rows = made(series, tmp_path, method=method, block=block, allow=allow)
        lists = lists_of(rows)
        assert {other for others in lists.values() for other in others} == {1, 3, 4, 11}
        assert set(lists[2]) >= {1, 3, 4}
        assert report.eligible_items == 4
        assert report.rule_rows == {"--allow": 6, "--block": 3}
    assert {len(others) for item, others in lists.items() if item not in {1, 3, 4, 11}} == {4}


def test_rules_that_leave_no_item_are_a_warning(series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    item = made(series, tmp_path)[1][0]["item_id"]
    rule = write_rows(tmp_path / "rule.csv", "item_id", str(item))
    assert "no item has a list" not in caplog.text
    assert made(series, tmp_path, allow=rule, block=rule)[0].rows == 0
    assert "no item has a list, because of --allow and --block" in caplog.text


def test_a_rule_table_without_any_effect_is_an_error(series: Path, tmp_path: Path) -> None:
    block = write_rows(tmp_path / "block.csv", "item_id", "999")
    with pytest.raises(InputError, match=r"block.csv: .*--block.* 0 of 1 items|the model knows 0 of 1 items"):
        made(series, tmp_path, block=block)
    # Unless the histories know the item already.
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [999]})
    similar(series, SimilarConfig(block=block), tmp_path / "similar.parquet", sequences)
    report, _ = made(series, tmp_path, block=block, allow_empty_rules=True)
    assert report.eligible_items == report.items
    nothing = write_rows(tmp_path / "nothing.csv", "item_id")
    with pytest.raises(InputError, match="holds no rows"):
        made(series, tmp_path, allow=nothing)
    assert made(series, tmp_path, allow=nothing, allow_empty_rules=True)[0].rows == 0


def test_segments_are_refused(series: Path, tmp_path: Path) -> None:
    block = write_rows(tmp_path / "block.csv", "item_id,segment", "1,new")
    with pytest.raises(ConfigError, match=r"has rows with a segment; expected --segments of score, .*or rows without"):
        made(series, tmp_path, block=block)


def test_co_occurrence_of_a_model_without_neighbours_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "similar.parquet"
    assert run_cli("similar", "--model", trained_model(), "--method", "co-occurrence", "--out", out) == 4
    assert capsys.readouterr().err.splitlines() == [
        f"batchrec: error: --method co-occurrence: {trained_model()} stores no neighbours of items, because it was "
        "trained with --blend none. Pass --method vectors, or train without --blend none"
    ]
    assert not names_in(tmp_path)


def test_vectors_of_a_model_without_an_encoder_are_refused(tmp_path: Path) -> None:
    model = write_model_of(SERIES, tmp_path / "model", max_epochs=0)
    with pytest.raises(ModelError, match="trained with --max-epochs 0 and has no embeddings"):
        made(model, tmp_path, method="vectors")


def test_blended_is_what_the_model_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    signals = write_model_of(SERIES, tmp_path / "model", max_epochs=0)
    cases: list[tuple[Path, SimilarMethod]] = [(trained_model(), "vectors"), (signals, "co-occurrence")]
    for model, method in cases:
        caplog.clear()
        report, rows = made(model, tmp_path, method="blended")
        assert f"blended is {method} only" in caplog.text
        assert report.method == method
        assert rows == made(model, tmp_path, method=method)[1]


def test_the_default_method_depends_on_what_the_model_has_and_on_its_items(
    series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, job.__name__)
    signals = write_model_of(SERIES, tmp_path / "model", max_epochs=0)
    n_items = len(load_model(series).vocabulary)
    cases: list[tuple[Path, int, SimilarMethod, str]] = [
        (series, n_items, "blended", f"the model has {n_items} items, at most {n_items}"),
        (
            series,
            n_items - 1,
            "co-occurrence",
            f"the model has {n_items} items, and blended compares all pairs of them",
        ),
        (signals, n_items, "co-occurrence", "the model was trained with --max-epochs 0 and has no vectors of items"),
        (trained_model(), 0, "vectors", "the model was trained with --blend none and stores no neighbours of items"),
    ]
    for model, most, method, reason in cases:
        caplog.clear()
        monkeypatch.setattr(job, "_MOST_BLENDED", most)
        report, rows = made(model, tmp_path)
        assert [record.getMessage() for record in caplog.records] == [f"--method auto takes {method}: {reason}"]
        assert report.method == method
        assert rows == made(model, tmp_path, method=method)[1]


def test_the_help_names_the_most_items_that_are_blended() -> None:
    assert f"blended up to {job._MOST_BLENDED:,} items" in SimilarConfig.__dataclass_fields__["method"].metadata["help"]


def test_an_error_leaves_the_old_table(series: Path, tmp_path: Path) -> None:
    made(series, tmp_path)
    before = (tmp_path / "similar.parquet").read_bytes()
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(ModelError):
        made(broken, tmp_path)
    with pytest.raises(ConfigError, match="is also an input"):
        made(series, tmp_path, block=str(tmp_path / "similar.parquet"))
    assert (tmp_path / "similar.parquet").read_bytes() == before
    assert names_in(tmp_path) == {"broken", "similar.parquet"}


def test_the_model_is_not_overwritten(series: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(series, model)
    for write in (
        lambda out: similar(model, SimilarConfig(), out),
        lambda out: score(training_sequences(), model, ScoringConfig(device="cpu"), out),
    ):
        with pytest.raises(ConfigError, match=r"items\.parquet: is also an input\. Pass another --out"):
            write(model / "items.parquet")
    load_model(model)


def test_the_command_prints_a_report(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--top-k", 2, "--method", "co-occurrence", "--json")
    assert run_cli("similar", "--model", series, "--out", tmp_path / "similar.parquet", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["method"], report["items_with_list"], report["rows"]) == ("co-occurrence", 8, 15)
    assert pq.read_metadata(tmp_path / "similar.parquet").num_rows == 15


def test_any_target_holds_the_rows_of_the_file(series: Path, folder: Path) -> None:
    config = SimilarConfig(top_k=2, run_date="2026-11-24")
    report = similar_to("similar.parquet", series, config)
    rows = pq.read_table("similar.parquet").to_pylist()
    assert report.out == "similar.parquet"
    for out in ("similar/", "memory://bucket/similar/", "duckdb://shop.db?table=similar_items"):
        # A repeated run date replaces its rows.
        for _ in range(2):
            assert similar_to(out, series, config).out == out
    assert read_folder("similar") == {"2026-11-24": rows}
    assert read_store_folder("memory://bucket/similar/") == {"2026-11-24": rows}
    with duckdb.connect("shop.db") as con:
        in_table = con.sql("select * exclude run_date from similar_items order by item_id, rank").to_arrow_table()
    assert in_table.to_pylist() == rows
    assert names_in(folder) == {"similar.parquet", "similar", "shop.db"}


def test_a_table_of_recommendations_is_not_replaced_by_similar_items(series: Path, folder: Path) -> None:
    sequences = write_sequences(folder / "sequences.parquet", training_histories())
    for out in ("recs/", "memory://bucket/recs/", "duckdb://recs.db?table=recs"):
        options = ("--sequences", sequences, "--model", trained_model(), "--device", "cpu", "--out", out)
        assert run_cli("score", *options) == 0
        with pytest.raises(ConfigError, match=r"exists with columns|holds rows of the layout long") as error:
            similar_to(out, series, SimilarConfig())
        assert str(error.value).endswith("Pass another --out")
