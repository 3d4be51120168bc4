"""The page of a night: every run writes it, and none depends on it."""

import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import vl_convert

from batchrec.errors import GateError, InputError, NothingToDo
from batchrec.nightly import page as page_module
from batchrec.nightly import publish_steps
from batchrec.nightly.registry import ModelRegistry
from batchrec.system.signals import Terminated
from tests.support.models import names_in, run_cli
from tests.support.night_pages import Page, pages_of
from tests.support.nights import Company, later, night


@pytest.fixture
def reported(shop: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    """Return a company whose nights write pages, without drawings."""
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda _: '<svg width="1" height="1" viewBox="0 0 1 1"></svg>')
    shop.config = replace(shop.config, report=True)
    return shop


def page_of(shop: Company, number: int) -> Path:
    return shop.archive.night(night(number)) / "report.html"


def test_a_night_writes_its_page_and_keeps_the_newest_histories(reported: Company) -> None:
    reported.run(0)
    first = page_of(reported, 0).read_bytes()
    reported.write_log(later())
    reported.run(1)
    page = Page(page_of(reported, 1))
    assert page.figures["changes"]["Compared with the table of"] == str(night(0))
    assert not [section for section, text in page.texts.items() if "Missing." in text]
    assert page_of(reported, 0).read_bytes() == first
    assert names_in(page_of(reported, 0).parent) == {"recs.parquet", "report.json", "report.html"}
    assert (page_of(reported, 1).parent / "sequences.parquet").exists()


def test_a_killed_night_that_another_date_finishes_gets_its_page(
    reported: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported.run_killed(monkeypatch, ModelRegistry, "use", ends="after")
    assert not page_of(reported, 0).exists()
    reported.run(1)
    assert [Page(page_of(reported, number)).figures["night"]["Run date"] for number in (0, 1)] == [
        str(night(0)),
        str(night(1)),
    ]


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_night_killed_before_its_page_gets_it_from_the_next_run(
    is_repeated: bool, reported: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_repeated:
        reported.run(0)
        reported.write_log(later())
    reported.run_killed(monkeypatch, page_module, "write_page")
    dead = reported.folder / "nights/.batchrec.0123abcd.tmp"
    dead.mkdir()
    page, times = page_of(reported, 0), []
    for _ in range(2):
        with pytest.raises(NothingToDo):
            reported.run(0)
        times.append(page.stat().st_mtime_ns)
    assert not dead.exists()
    assert times[0] == times[1] >= page.with_name("report.json").stat().st_mtime_ns


def test_without_report_a_night_writes_no_page_and_keeps_no_histories(shop: Company) -> None:
    shop.run(0)
    assert names_in(page_of(shop, 0).parent) == {"recs.parquet", "report.json"}


def test_a_failed_night_gets_a_page_until_it_is_published(reported: Company) -> None:
    with pytest.raises(GateError):
        reported.run(0, gate_min_coverage=1.0)
    file = reported.folder / "nights/failed" / f"{night(0)}.html"
    page = Page(file)
    assert "Not published: output gate: share of the items recommended" in page.texts["night"]
    assert page.tables["Failed gates"][1][:2] == ["share of the items recommended", "output"]
    assert page.html.index("Failed gates") < page.html.index("Run id")
    assert "Missing." not in page.texts["users"]
    reported.run(0)
    assert not file.exists()
    assert page_of(reported, 0).exists()


def test_a_night_that_fails_before_its_first_stage_gets_a_page(reported: Company) -> None:
    (reported.folder / "ratings.csv").unlink()
    with pytest.raises(InputError):
        reported.run(0)
    page = Page(reported.folder / "nights/failed" / f"{night(0)}.html")
    assert "no file found" in page.texts["night"]
    assert "The night ended before its first gate" in page.texts["gates"]


class PanicError(BaseException):
    """A panic of a library in Rust, which is not an Exception."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ZeroDivisionError("a bug"),
        PanicError("a bug"),
        Terminated(signal.SIGTERM),
    ],
)
def test_a_page_that_fails_is_one_warning(
    error: BaseException, reported: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(page_module, "write_page", fail)
    assert reported.run(0).failed is None
    assert reported.rows()
    assert not page_of(reported, 0).exists()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1


def test_histories_that_cannot_be_linked_are_left_out(reported: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(publish_steps, "try_link", fail)
    assert reported.run(0).failed is None
    page = Page(page_of(reported, 0))
    assert "The histories of this night are not kept" in page.texts["histories"]
    assert names_in(page_of(reported, 0).parent) == {"recs.parquet", "report.json", "report.html"}


def test_a_page_spills_next_to_the_nights(reported: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = reported.folder / "nights/.batchrec.0123abcd.tmp"
    dead.mkdir(parents=True)
    spilled: set[Path] = set()

    def draw(_: object) -> str:
        spilled.update(reported.folder.rglob(".batchrec.*.tmp"))
        return '<svg width="1" height="1" viewBox="0 0 1 1"></svg>'

    monkeypatch.setattr(vl_convert, "vegalite_to_svg", draw)
    reported.run(0)
    assert {file.parent for file in spilled} == {dead.parent}
    assert not dead.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_a_limit_that_would_end_the_process_leaves_the_page_out(
    reported: Company,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1 << 34, 1 << 34))
    with caplog.at_level(logging.INFO):
        reported.run(0)
    assert "addresses are limited to 16.0 GiB (ulimit -v)" in caplog.text
    assert not page_of(reported, 0).exists()
    monkeypatch.chdir(reported.folder)
    assert run_cli("report") == 2
    assert "Raise that limit" in capsys.readouterr().err


def test_a_night_without_the_extra_says_so_once_and_has_no_page(
    reported: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with caplog.at_level(logging.INFO):
        reported.run(0)
    (record,) = [record for record in caplog.records if "batchrec[report]" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert not page_of(reported, 0).exists()


def test_a_damaged_report_of_an_earlier_night_is_left_out_of_the_trend(
    reported: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        reported.run(number)
    damaged = page_of(reported, 0).with_name("report.json")
    damaged.write_text(damaged.read_text(encoding="utf-8").replace('"resumed": false', '"resumed": true'), "utf-8")
    nights = [report["run_date"] for report in pages_of(reported).files(night(2)).earlier]
    assert nights == [str(night(1))]


def test_the_command_writes_the_page_that_the_night_wrote(
    reported: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(reported.folder)
    assert run_cli("report") == 2
    assert "no night has finished yet" in capsys.readouterr().err
    reported.run(0)
    assert run_cli("report") == 0
    assert capsys.readouterr().out == f"report.html: the page of night {night(0)}\n"
    assert Path("report.html").read_bytes() == page_of(reported, 0).read_bytes()
    assert run_cli("report", "--run-date", night(1)) == 2
    assert "night 2024-03-02 has not finished" in capsys.readouterr().err
    recs, model = reported.archive.table(night(0)), reported.folder / "models/current"
    for kept in (recs, recs.with_name("report.json"), model / "manifest.json", "recs.parquet"):
        assert run_cli("report", "--out", kept) == 2
        assert "is also an input" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run_cli("report", "--out", "other.html") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("Install it with pip install 'batchrec[report]'")
    assert not Path("other.html").exists()
