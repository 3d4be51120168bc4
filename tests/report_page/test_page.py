"""The page of a night: its sections, their figures, and what it says if files are missing or damaged."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert

from batchrec.config import CatalogueConfig
from batchrec.model.directory import Manifest, read_manifest
from batchrec.report_page import model_sections
from batchrec.report_page.blocks import Cell
from batchrec.report_page.cells import shown, shown_rows
from batchrec.report_page.night_files import NightFiles
from batchrec.report_page.page import write_page
from tests.support.models import training_histories, training_log
from tests.support.night_pages import BAD_TITLE, COLD, HISTORIES, Page, last_night, write_evaluation
from tests.support.nights import night, rows_of

SECTIONS = [
    *("night", "gates", "changes", "trend", "users", "coverage", "sources", "popularity", "histories", "model"),
    *("training", "evaluation", "card"),
]


def page_of(files: NightFiles, folder: Path) -> Page:
    write_page(files, folder / "report.html")
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return the page of the last of two nights, with an evaluation."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_svg", lambda _: '<svg width="1" height="1" viewBox="0 0 1 1"></svg>')
        return page_of(last_night(write_evaluation(folder)), folder)


def lists_of(table: Path) -> dict[Any, set[Any]]:
    lists: dict[Any, set[Any]] = {}
    for row in rows_of(table):
        lists.setdefault(row["user_id"], set()).add(row["item_id"])
    return lists


def test_every_section_appears_from_its_data(page: Page) -> None:
    assert [section for section in page.texts if section] == SECTIONS
    assert not [section for section, text in page.texts.items() if "Missing." in text]
    assert re.findall(r'<a href="#(\w+)">', page.html) == SECTIONS


def test_the_night_and_its_gates_are_those_of_the_report(page: Page) -> None:
    report = last_night().report
    assert page.figures["night"]["Run id"] == report["run_id"]
    assert page.figures["night"]["Users with a list"] == str(len(HISTORIES))
    rows = page.tables["Figures that the gates checked"][1:]
    assert [row[0] for row in rows] == [check["figure"] for check in report["checks"]]
    assert {row[-1] for row in rows} == {"passed"}
    assert [row[2:5] for row in rows] == [
        [shown(check[name]) for name in ("value", "minimum", "maximum")] for check in report["checks"]
    ]


def test_changes_equal_a_comparison_of_the_two_tables(page: Page) -> None:
    files = last_night()
    assert files.recs is not None
    assert files.previous is not None
    tonight, before = lists_of(files.recs), lists_of(files.previous[1])
    shares = {user: len(items & before[user]) / len(items) for user, items in tonight.items()}
    figures = page.figures["changes"]
    assert figures["Compared with the table of"] == str(night(0))
    assert figures["Lists with the same items"] == str(sum(share == 1 for share in shares.values()))
    assert figures["Mean share of a list that was in it before"] == f"{sum(shares.values()) / len(shares):.2%}"
    new, old = set().union(*tonight.values()), set().union(*before.values())
    assert figures["Items that are new in the lists"] == str(len(new - old))
    assert figures["Items that are gone from the lists"] == str(len(old - new))
    (moved,) = (rows[1:] for caption, rows in page.tables.items() if caption.startswith("The lists that moved most"))
    expected = sorted((share, user) for user, share in shares.items() if share < 1)[:10]
    assert [row[:2] for row in moved] == [[str(user), f"{round(5 * (1 - share))} of 5"] for share, user in expected]
    user = expected[0][1]
    ranked = [row["item_id"] for row in rows_of(files.recs) if row["user_id"] == user]
    came = [item for item in ranked if item not in before[user]][:3]
    assert moved[0][2] == "; ".join(f"{BAD_TITLE} {item}" for item in came)


def test_popularity_equals_counts_of_events_and_rows(page: Page) -> None:
    files = last_night()
    assert files.recs is not None
    events = Counter(item for items in HISTORIES.values() for item in items)
    taken = Counter(row["item_id"] for row in rows_of(files.recs))
    ranked = sorted(events, key=lambda item: (-events[item], item))
    rows = page.tables["Share of events and of recommendations by popularity rank"][1:]
    for (first, last), row in zip([(1, 3), (4, 9), (10, 31), (32, len(ranked))], rows, strict=True):
        items = ranked[first - 1 : last]
        assert row == [
            f"{first}–{last}",
            f"{sum(events[item] for item in items) / sum(events.values()):.2%}",
            f"{sum(taken[item] for item in items) / taken.total():.2%}",
            str(sum(item in taken for item in items)),
        ]


def test_coverage_and_sources_equal_counts_of_the_table(page: Page) -> None:
    recs = last_night().recs
    assert recs is not None
    rows = rows_of(recs)
    items = {row["item_id"] for row in rows}
    assert page.figures["coverage"]["Items recommended"] == str(len(items))
    assert page.figures["coverage"]["Users with a full list"] == str(sum(row["rank"] == 5 for row in rows))
    sources = Counter(row["source"] for row in rows)
    assert len(sources) == 2
    assert page.tables["Source of the recommendations"][1:] == [
        [source, str(n), f"{n / len(rows):.2%}", str(len({row["user_id"] for row in rows if row["source"] == source}))]
        for source, n in sources.most_common()
    ]


def test_the_signals_of_the_blend_are_those_of_the_training_of_this_model(tmp_path: Path) -> None:
    files = last_night()
    trained = {
        "model_id": files.stages["score"]["model_id"],
        "blend": {"encoder": 1.5, "popular_7_days": -1},
        "blend_ndcg_gains": {"encoder": 0.25, "popular_7_days": 0.0125},
        "blend_shares": {"encoder": 1.0, "popularity": 0.0},
    }
    caption = "Signals of the blend, at the training"
    report = {**files.report, "stages": {**files.stages, "train": trained}}
    assert page_of(replace(files, report=report), tmp_path).tables[caption][1:] == [
        ["encoder", "1.5", "0.2500"],
        ["popular 7 days", "-1.0", "0.0125"],
    ]
    report["stages"]["train"] |= {"model_id": "another"}
    assert caption not in page_of(replace(files, report=report), tmp_path).tables


def test_the_charts_get_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    charts: list[dict[str, Any]] = []

    def draw(spec: dict[str, Any]) -> str:
        charts.append(spec)
        return '<svg width="1" height="1" viewBox="0 0 1 1"></svg>'

    monkeypatch.setattr(vl_convert, "vegalite_to_svg", draw)
    files = last_night()
    page = page_of(files, tmp_path)
    values = [[(row.get("at"), row.get("value")) for row in chart["data"]["values"]] for chart in charts]
    lengths = Counter(2 ** (len(items).bit_length() - 1) for items in HISTORIES.values())
    bands = [(f"{n:,}–{2 * n - 1:,}" if n > 1 else "1", lengths[n]) for n in sorted(lengths)]
    assert bands in values
    assert files.model is not None
    epochs = training_log(files.model)
    assert len(epochs) > 1
    assert [(epoch["epoch"], epoch["loss"]) for epoch in epochs] in values
    accuracy = [(epoch["epoch"], epoch["ndcg_at_10"]) for epoch in epochs]
    assert accuracy + [(epoch["epoch"], epoch["popularity_ndcg_at_10"]) for epoch in epochs] in values
    assert [(stage, report["seconds"]) for stage, report in files.stages.items()] in values
    assert [(str(night(number))[5:], len(HISTORIES)) for number in range(2)] in values
    assert len(charts) == page.html.count("<svg role=")


def test_sample_users_show_histories_lists_and_reasons(page: Page) -> None:
    headings = re.findall(r"<h3>User (\d+): (.*?), (\d+) events</h3>", page.html)
    assert [chosen_as for _, chosen_as, _ in headings] == [
        "a short history",
        "a history of median length",
        "a long history",
        "cold: a list of popular items",
    ]
    lengths = [len(HISTORIES[int(user)]) for user, _, _ in headings]
    assert [int(n) for _, _, n in headings] == lengths
    assert lengths[:3] == sorted(lengths[:3])
    assert headings[3][0] == str(COLD)
    # Of equal captions the reader keeps the last table: that of the cold user.
    assert page.tables["Took last, newest first"][1:] == [["5", "2023-11-14"]]
    assert [row[3:] for row in page.tables["Gets"][1:]] == [["popular", "–", ""]] * 5
    assert "Because of" in page.texts["users"]


def test_titles_are_escaped(page: Page) -> None:
    assert f"{BAD_TITLE} 10" in page.texts["users"]
    assert "<script" not in page.html
    assert "<b>table" not in page.html
    assert page.tables["Each method, with 95 % intervals"][2][0] == "<b>table</b>"


def test_the_evaluation_shows_intervals(page: Page, tmp_path: Path) -> None:
    assert page.tables["Each method, with 95 % intervals"][1] == [
        "model",
        *[".2500 [.1250, .5000]"] * 4,
        "75.0%",
        "3.5",
    ]
    assert page.figures["evaluation"]["Users tested"] == "1,234"
    assert "model against popular: NDCG@10 +.1000 [+.0500, +.1500]: better." in page.texts["evaluation"]
    assert "0123456789ab, which was trained without the test items" in page.texts["evaluation"]
    assert "evaluation" not in page_of(last_night(), tmp_path).texts


def test_the_model_card_names_data_options_and_checksums(page: Page) -> None:
    files = last_night()
    assert files.model is not None
    text = page.texts["card"]
    assert page.figures["card"]["Events"] == str(sum(map(len, HISTORIES.values())))
    assert page.figures["card"]["Oldest event"] == "2023-11-14 22:13:20 UTC"
    assert files.report["recs_sha256"] in text
    assert ["train", "n-layers", "1"] in page.tables["Options that the table depends on"]
    assert "It is not a probability" in text


def test_the_model_card_names_no_layers_without_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_encoder(folder: Path) -> Manifest:
        manifest = read_manifest(folder)
        return replace(manifest, config={**manifest.config, "max_epochs": 0})

    assert "Layers, hidden size, heads" in page_of(last_night(), tmp_path).figures["card"]
    monkeypatch.setattr(model_sections, "read_manifest", without_encoder)
    figures = page_of(last_night(), tmp_path).figures["card"]
    assert figures["Encoder"] == "none: simple signals only"
    assert "Layers, hidden size, heads" not in figures


@pytest.mark.drawn
def test_the_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    page = page_of(last_night(write_evaluation(tmp_path)), tmp_path)
    assert page.html.count("<path") > 20
    assert not re.search(r"https?:|\bsrc=|url\(|@import|<script|<link", page.html)
    assert set(re.findall(r'href="(.)', page.html)) == {"#"}
    assert not re.search(r'fill="#|stroke="#(?!ddd|888)', page.html), "a colour that dark mode does not change"


MISSING: list[tuple[Callable[[NightFiles], NightFiles], set[str]]] = [
    (lambda files: replace(files, recs=None), {"changes", "users", "sources", "popularity"}),
    (lambda files: replace(files, histories=None), {"users", "popularity", "histories"}),
    (lambda files: replace(files, model=None), {"training", "card"}),
    (lambda files: replace(files, evaluation=Path("none.json")), {"evaluation"}),
    (
        lambda files: replace(files, report={**files.report, "stages": {}, "checks": [], "models": []}),
        {"gates", "coverage", "histories", "model", "card"},
    ),
]


@pytest.mark.parametrize(("without", "sections"), MISSING)
def test_a_section_says_what_is_missing(
    without: Callable[[NightFiles], NightFiles], sections: set[str], tmp_path: Path
) -> None:
    page = page_of(without(last_night()), tmp_path)
    assert {section for section, text in page.texts.items() if "Missing. " in text} == sections


def test_nothing_is_missing_on_a_first_night(tmp_path: Path) -> None:
    page = page_of(replace(last_night(), previous=None, earlier=[]), tmp_path)
    assert "no earlier night has an intact table" in page.texts["changes"]
    assert "no report of an earlier night is kept" in page.texts["trend"]
    assert "Missing." not in "".join(page.texts.values())


def damaged(file: Path, folder: Path) -> Path:
    """Return a copy of a file with other bytes in its first half."""
    contents = file.read_bytes()
    copy = folder / file.name
    copy.write_bytes(contents[: len(contents) // 4] + b"damage" + contents[len(contents) // 2 :])
    return copy


def test_damaged_files_are_missing(tmp_path: Path) -> None:
    files = last_night()
    assert files.recs is not None
    assert files.histories is not None
    (tmp_path / "evaluation.json").write_text('{"methods": [1]}', encoding="utf-8")
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    files = replace(
        files,
        recs=damaged(files.recs, tmp_path),
        histories=damaged(files.histories, tmp_path),
        model=tmp_path,
        previous=(date(2024, 3, 2), tmp_path / "manifest.json"),
        evaluation=tmp_path / "evaluation.json",
    )
    page = page_of(files, tmp_path)
    missing = {section for section, text in page.texts.items() if "Missing. " in text}
    assert missing >= {"changes", "users", "sources", "popularity", "histories", "training", "evaluation", "card"}


def test_a_damaged_record_of_the_training_is_missing(tmp_path: Path) -> None:
    model = last_night().model
    assert model is not None
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "training.jsonl").write_text('{"epoch": 1}\n', encoding="utf-8")
    page = page_of(replace(last_night(), model=tmp_path), tmp_path)
    assert "training.jsonl of the model, is lost or damaged" in page.texts["training"]
    assert "Missing." not in page.texts["card"]


def edited(file: Path, folder: Path, edit: Callable[[pa.Table], pa.Table]) -> Path:
    copy = folder / "edited.parquet"
    pq.write_table(edit(pq.read_table(file)), copy)
    return copy


def test_a_report_without_a_figure_is_missing_in_its_section(tmp_path: Path) -> None:
    files = last_night()
    stages = {**files.stages, "check": {"users": 1}}
    page = page_of(replace(files, report={**files.report, "stages": stages}), tmp_path)
    assert "Missing. The report of a night lacks 'histories'" in page.texts["coverage"]


def test_a_table_without_reasons_shows_none(tmp_path: Path) -> None:
    files = last_night()
    assert files.recs is not None
    reasons = ["carried_by", "because_items", "because_weights"]
    page = page_of(
        replace(files, recs=edited(files.recs, tmp_path, lambda table: table.drop_columns(reasons))), tmp_path
    )
    assert "Because of" not in page.html
    assert "Part of the blend that carries" not in page.html
    assert "Missing." not in page.texts["users"]


def test_a_night_of_cold_users_shows_one_of_them(tmp_path: Path) -> None:
    files = last_night()
    assert files.recs is not None

    def cold(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("source")
        return table.set_column(place, table.schema.field("source"), pa.array(["popular"] * len(table)))

    page = page_of(replace(files, recs=edited(files.recs, tmp_path, cold)), tmp_path)
    assert re.findall(r"<h3>User (\d+): cold", page.html) == [str(min(training_histories()))]
    assert page.tables["Source of the recommendations"][1][2] == "100.00%"


def test_a_catalogue_that_cannot_be_read_leaves_ids(tmp_path: Path) -> None:
    page = page_of(replace(last_night(), catalogue=CatalogueConfig(items=str(tmp_path / "none.csv"))), tmp_path)
    assert "Without titles: " in page.texts["users"]
    assert "Missing." not in page.texts["users"]


def test_recommended_items_without_events_are_in_no_band(tmp_path: Path) -> None:
    files = last_night()
    assert files.recs is not None

    def unheard(table: pa.Table) -> pa.Table:
        items = [1 if row["rank"] == 1 else row["item_id"] for row in table.to_pylist()]
        return table.set_column(table.schema.get_field_index("item_id"), table.schema.field("item_id"), pa.array(items))

    page = page_of(replace(files, recs=edited(files.recs, tmp_path, unheard)), tmp_path)
    rows = page.tables["Share of events and of recommendations by popularity rank"][1:]
    assert sum(float(row[2].rstrip("%")) for row in rows) == pytest.approx(80, abs=0.1)


def test_a_name_that_is_not_utf_8_is_shown_by_its_bytes(tmp_path: Path) -> None:
    page = page_of(replace(last_night(), report={**last_night().report, "failed": "caf\udce9.csv: lost"}), tmp_path)
    assert "caf\\udce9.csv: lost" in page.texts["night"]


def test_passwords_are_hidden(tmp_path: Path) -> None:
    failed = "postgresql://shop:pa&ss<word@host/db: cannot be read"
    page = page_of(replace(last_night(), report={**last_night().report, "failed": failed}), tmp_path)
    assert "postgresql://shop:***@host/db: cannot be read" in page.texts["night"]
    assert "ss<word" not in page.texts["night"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        (0, "0"),
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (1234.56789, "1,234.5679"),
        (0.00012345, "0.0001234"),
    ],
)
def test_numbers_are_short(cell: float | None, text: str) -> None:
    assert shown(cell) == text


def test_the_points_of_a_column_of_numbers_stand_below_each_other() -> None:
    rows: list[list[Cell]] = [["a", 8.0, 12.0, 0.5, 1], ["b", 7.64, None, 0.00001, 20], ["c", 7.579, 3.0, None, 300]]
    assert shown_rows(rows) == [
        ["a", "8.000", "12", "0.5", "1"],
        ["b", "7.640", "–", "1e-05", "20"],
        ["c", "7.579", "3", "–", "300"],
    ]
    assert shown_rows([]) == []
