"""Each kind of file and folder is described, and refused if it is damaged."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.model.directory import load_model
from batchrec.system.checkpoints import CheckpointStore, fingerprint_of
from tests.support.damage import flip_a_bit
from tests.support.models import run_cli, trained_model, training_histories, write_sequences
from tests.support.night_pages import two_nights
from tests.support.nights import Company, night

LOG = "customer,sku,when\nann,a1,2024-06-01\nann,a2,2024-06-02 12:00:00\nbob,a1,2024-06-03\n"


def inspected(capsys: pytest.CaptureFixture[str], path: object, *options: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run_cli("inspect", path, "--json", *options) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], path: object) -> str:
    capsys.readouterr()
    assert run_cli("inspect", path) in {2, 3, 4}
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_a_log_is_described_by_its_columns_events_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log.csv"
    file.write_text(LOG.replace("when", "event_time"), encoding="utf-8")
    found = inspected(capsys, file)
    assert found["kind"] == "a log"
    assert found["columns"] == {
        "customer": "text",
        "sku": "text",
        "event_time": "text that looks like times",
    }
    figures = {"files": 1, "rows": 3, "user column": "customer", "item column": "sku", "timestamp column": "event_time"}
    events = {"events": 3, "users": 2, "items": 2, "oldest": "2024-06-01 00:00:00", "newest": "2024-06-03 00:00:00"}
    assert found["figures"] == figures | events | {"rows that cannot be used": 0}
    assert found["head"][0] == {"customer": "ann", "sku": "a1", "event_time": "2024-06-01"}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_logs_of_other_formats_are_described(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"user_id": user, "item_id": 10 * user, "ts": 1_700_000_000 + user} for user in range(7)]
    file = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = inspected(capsys, file)
    assert [found["figures"][name] for name in ("rows", "users", "items", "timestamp column")] == [7, 7, 7, "ts"]
    assert len(found["head"]) == 5
    assert found["figures"]["newest"] == "2023-11-14 22:13:26"


def test_the_columns_of_build_sequences_come_first_and_bad_rows_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.csv"
    file.write_text(LOG + ",a9,2024-06-04\n", encoding="utf-8")
    assert inspected(capsys, file)["kind"].startswith("a table, but no log")
    monkeypatch.setenv("BATCHREC_BUILD_SEQUENCES_TIMESTAMP_COLUMN", "when")
    figures = inspected(capsys, file)["figures"]
    assert [figures[name] for name in ("rows", "events", "rows that cannot be used")] == [4, 3, 1]
    assert "line 5: no user" in figures["first of these"]
    file.write_text("customer,sku,when\n,a1,2024-06-01\n", encoding="utf-8")
    assert "no row of the log can be used" in refused(capsys, file)


def test_histories_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_sequences(tmp_path / "sequences.parquet", {1: [10, 11, 12], 2: [10]})
    found = inspected(capsys, file)
    assert found["kind"] == "histories"
    names = ("users", "events", "items", "shortest_history", "longest_history", "oldest", "newest")
    assert [found["figures"][name] for name in names] == [
        *(2, 4, 3, 1, 3),
        *("1970-01-01 00:00:00", "1970-01-01 00:00:02"),
    ]
    times = pa.array([[3, 2, 1], [0]], pa.list_(pa.int64()))
    pq.write_table(pq.read_table(file).set_column(2, "timestamps", times), file)
    assert "not in time order" in refused(capsys, file)


def test_a_model_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, trained_model())
    assert found["kind"] == "a model"
    assert found["figures"]["model_id"] == load_model(trained_model()).manifest.model_id
    assert found["figures"]["n_items"] == len({item for items in training_histories().values() for item in items})
    assert len(found["head"]) == 5
    assert inspected(capsys, trained_model() / "items.parquet")["kind"] == "vocabulary of a model"
    model = tmp_path / "model"
    shutil.copytree(trained_model(), model)
    flip_a_bit(model / "weights.safetensors")
    assert "weights.safetensors is not the file that was written" in refused(capsys, model)


def test_tables_nights_and_archives_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    shop = Company(two_nights())
    rows = shop.rows(night(1))
    lists: dict[Any, int] = {}
    for row in rows:
        lists[row["user_id"]] = lists.get(row["user_id"], 0) + 1
    archive = shop.archive
    for path, kind in (
        (archive.table(night(1)), "recommendations"),
        (archive.night(night(1)), "a published night"),
    ):
        found = inspected(capsys, path)
        assert found["kind"] == kind
        figures = found["figures"]
        assert figures["rows"] == len(rows)
        assert figures["lists"] == len(lists)
        assert figures["items"] == len({row["item_id"] for row in rows})
        assert [figures["shortest_list"], figures["longest_list"]] == [min(lists.values()), max(lists.values())]
        assert figures["lowest_score"] == min(row["score"] for row in rows)
        assert sum(figures["sources"].values()) == len(rows)
        assert found["head"][1]["item_id"] == rows[1]["item_id"]
    found = inspected(capsys, archive.folder)
    assert found["kind"] == "an archive of nights"
    assert found["figures"]["nights"] == [str(night(0)), str(night(1))]
    found = inspected(capsys, shop.registry.folder)
    assert found["kind"] == "the models of the nights"
    assert found["figures"]["in use"] in found["figures"]["models"]


def test_only_nights_are_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights = tmp_path / "nights"
    shutil.copytree(Company(two_nights()).archive.folder, nights)
    (nights / "run_date=2026-11-29").mkdir()
    (nights / f"run_date={night(0)}").rename(nights / "run_date=backup")
    assert inspected(capsys, nights)["figures"]["nights"] == [str(night(1))]
    shutil.rmtree(nights / f"run_date={night(1)}")
    assert inspected(capsys, nights)["kind"] == "a folder of tables"


@pytest.mark.parametrize("name", ["recs.parquet", "report.json"])
def test_a_damaged_night_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights = tmp_path / "nights"
    shutil.copytree(Company(two_nights()).archive.folder, nights)
    damaged = nights / f"run_date={night(0)}" / name
    flip_a_bit(damaged)
    for path in (damaged.parent, nights):
        assert f"{damaged}: is lost" in refused(capsys, path)


def test_a_night_with_damaged_histories_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights = tmp_path / "nights"
    shutil.copytree(Company(two_nights()).archive.folder, nights)
    damaged = nights / f"run_date={night(1)}" / "sequences.parquet"
    flip_a_bit(damaged)
    for path in (damaged.parent, nights):
        assert f"{damaged}: cannot be read: is not the file that was written" in refused(capsys, path)


def test_lists_that_break_their_contract_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(Company(two_nights()).archive.table(night(0)))
    file = tmp_path / "recs.parquet"
    # The metadata that name the contract are lost; the columns tell what it is.
    pq.write_table(table.replace_schema_metadata(), file)
    assert inspected(capsys, file)["figures"]["contract"] == "none written"
    pq.write_table(table.slice(1).replace_schema_metadata(), file)
    assert "has 1 users with gaps in ranks" in refused(capsys, file)
    pq.write_table(table.replace_schema_metadata({"batchrec.contract": "recs/9"}), file)
    assert "has the contract recs/9; expected one of" in refused(capsys, file)


def test_checkpoints_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / ".model.progress"
    store = CheckpointStore(folder, fingerprint_of({"seed": 1}))
    store.write("epoch-1", {"weights": np.arange(9)}, {"epoch": 1})
    store.write("epoch-2", {"weights": np.arange(9)}, {"epoch": 2})
    assert inspected(capsys, folder)["figures"]["checkpoints"] == ["epoch-1", "epoch-2"]
    flip_a_bit(folder / "epoch-2.part")
    assert "epoch-2: is damaged" in refused(capsys, folder)


def test_a_folder_of_tables_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Company(two_nights())
    folder = tmp_path / "parts"
    # A folder may have the suffix of a file.
    (folder / "more.parquet").mkdir(parents=True)
    tables = [folder / "a.parquet", folder / "more.parquet" / "b.parquet"]
    for number, table in enumerate(tables):
        shutil.copyfile(shop.archive.table(night(number)), table)
    figures = inspected(capsys, folder)["figures"]
    assert figures["tables"] == ["a.parquet (recommendations)", "more.parquet/b.parquet (recommendations)"]
    assert figures["rows"] == len(shop.rows(night(0))) + len(shop.rows(night(1)))
    flip_a_bit(tables[1])
    assert f"{tables[1]}: cannot be read: is not the file that was written" in refused(capsys, folder)


def test_what_is_nothing_of_all_this_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    for name in ("none.csv", "empty.csv", "broken.parquet"):
        assert name in refused(capsys, tmp_path / name)
    assert "is a table of a store" in refused(capsys, "delta:///nights")
    assert "no file found" in refused(capsys, "")


def test_the_text_has_a_line_per_figure_and_the_first_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log.csv"
    file.write_text(LOG.replace("when", "ts"), encoding="utf-8")
    assert run_cli("inspect", file) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["user", "column", "customer"] in lines
    assert ["column", "type"] in lines
    assert lines[-4:] == [
        ["customer", "sku", "ts"],
        ["ann", "a1", "2024-06-01"],
        ["ann", "a2", "2024-06-02", "12:00:00"],
        ["bob", "a1", "2024-06-03"],
    ]
