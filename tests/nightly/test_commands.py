"""The nightly commands, as a scheduler or an operator runs them."""

import json
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from batchrec.nightly.failed_nights import FailedNights
from tests.support.models import OBJECTIVES, run_cli
from tests.support.nights import FIRST, Company, company, later

LENIENT = """
train.every = "7d"
train.n-layers = 1
[score]
top-k = 3
device = "cpu"
[run.gate]
min-users = 0.0
min-full-lists = 0.0
max-top-items = 1.0
min-overlap = 0.0
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batchrec.toml").write_text(LENIENT, encoding="utf-8")
    with company(tmp_path, monkeypatch) as made:
        yield made


def night(number: int) -> str:
    return str(FIRST + timedelta(days=number))


def test_the_last_line_of_stdout_is_the_report(shop: Company, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("run", "--run-date", night(0), "--json") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["run_date"] == night(0)
    assert report["failed"] is None
    assert report["rows"] == len(shop.rows())
    assert run_cli("run", "--run-date", night(1), "--json", "--gate-min-coverage", 1) == 6
    said = capsys.readouterr()
    report = json.loads(said.out.splitlines()[-1])
    assert report["failed"] in said.err
    assert [check["figure"] for check in report["checks"] if not check["passed"]] == ["share of the items recommended"]
    (shop.folder / "ratings.csv").unlink()
    assert run_cli("run", "--run-date", night(1), "--json") == 3
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["failed"] in said.err


def test_nights_are_listed_with_their_figures(shop: Company, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("nights") == 0
    assert capsys.readouterr().out == "no nights\n"
    assert run_cli("run", "--run-date", night(0)) == 0
    shop.write_log(later())
    assert run_cli("run", "--run-date", night(1)) == 0
    assert run_cli("run", "--run-date", night(2), "--gate-min-coverage", 1) == 6
    assert run_cli("rollback", "--to", night(0)) == 0
    capsys.readouterr()
    assert run_cli("nights", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(row["run_date"], row["is_out"]) for row in listed] == [
        (night(0), True),
        (night(1), False),
        (night(2), False),
    ]
    assert run_cli("nights") == 0
    _, *rows, why = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["*", night(1), night(2)]
    assert [f"{row['rows']:,}" in line.split() for row, line in zip(listed, rows, strict=True)] == [True] * 3
    assert why == f"{night(2)} failed: {listed[2]['failed']}"


def test_log_lines_name_their_run_and_stage(shop: Company, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("run", "--run-date", night(0), "--log-format", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len({line["run_id"] for line in lines}) == 1
    assert {line["run_date"] for line in lines} == {night(0)}
    done = [line for line in lines if "seconds" in line]
    stages = ["build-sequences", "train", "evaluate-new", "score", "check", "publish"]
    assert [line["stage"] for line in done] == stages
    assert next(line["counts"]["rows"] for line in done if line["stage"] == "score") == len(shop.rows())


def test_exit_codes_tell_a_scheduler_what_happened(shop: Company, tmp_path: Path) -> None:
    assert run_cli("run", "--run-date", night(0)) == 0
    assert run_cli("run", "--run-date", night(0)) == 99
    assert run_cli("run", "--run-date", "yesterday") == 2
    assert run_cli("run", "--run-date", night(1), "--config", "none.toml") == 2
    assert run_cli("run", "--run-date", night(1), "--train-every", "soon") == 2
    (tmp_path / "ratings.csv").write_text("userId,movieId,timestamp\n", encoding="utf-8")
    assert run_cli("run", "--run-date", night(1)) == 3


def test_each_job_takes_its_options_from_its_table_in_the_config(shop: Company, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(LENIENT.replace("top-k = 3", 'top-k = 2\nout = "other.parquet"'))
    assert run_cli("run", "--config", "other.toml", "--run-date", night(0)) == 0
    assert not (tmp_path / "recs.parquet").exists()
    ranks = [row["rank"] for row in shop.rows_of("other.parquet")]
    assert set(ranks) == {1, 2}
    assert shop.trainings[0].n_layers == 1


def test_a_dry_run_writes_nothing(shop: Company, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.iterdir())
    assert run_cli("run", "--dry-run", "--run-date", night(0), "--json") == 0
    assert json.loads(capsys.readouterr().out)["trains"] == "there is no model yet"
    assert sorted(tmp_path.iterdir()) == before


def test_an_operator_rolls_back_the_table_and_the_model(shop: Company, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 7):
        assert run_cli("run", "--run-date", night(number)) == 0
    capsys.readouterr()
    assert run_cli("models", "list") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"  {night(0)}-")
    assert second.startswith(f"* {night(7)}-")
    assert run_cli("models", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoder"]["objective"] == OBJECTIVES[1]
    assert run_cli("models", "rollback") == 0
    assert shop.manifest().shape.objective == OBJECTIVES[0]
    assert run_cli("models", "rollback") == 2
    assert run_cli("rollback") == 0
    assert shop.rows() == shop.rows(FIRST)
    assert run_cli("rollback", "--to", night(7)) == 0
    assert shop.rows() == shop.rows(FIRST + timedelta(days=7))
    assert run_cli("models", "prune", "--keep", 1) == 0
    # The newest one and the one in use.
    assert len(shop.registry.versions()) == 2


def test_nothing_to_do_is_not_logged_as_an_error(shop: Company, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("run", "--run-date", night(0))
    assert run_cli("run", "--run-date", night(0)) == 99
    assert "error" not in capsys.readouterr().err
    assert run_cli("run", "--run-date", night(0), "--log-format", "json") == 99
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["level"] == "INFO"


def test_a_metrics_file_that_cannot_be_written_is_refused_before_the_night(
    shop: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("run", "--run-date", night(0), "--metrics-file", "nowhere/m.prom") == 2
    assert "nowhere does not exist" in capsys.readouterr().err.splitlines()[-1]
    assert not shop.trainings


def test_a_report_that_cannot_be_written_does_not_hide_the_error(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FailedNights, "write_report", full)
    monkeypatch.setattr("batchrec.nightly.run.write_metrics", full)
    (shop.folder / "ratings.csv").unlink()
    assert run_cli("run", "--run-date", night(0), "--metrics-file", "m.prom") == 3
    said = capsys.readouterr().err.splitlines()
    assert "ratings.csv: no file found" in said[-1]
    assert sum("No space left on device" in line for line in said) == 2


def test_the_log_says_in_which_stage_a_night_stopped(shop: Company, capsys: pytest.CaptureFixture[str]) -> None:
    (shop.folder / "ratings.csv").unlink()
    assert run_cli("run", "--run-date", night(0), "--log-format", "json") == 3
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    stopped = next(line for line in lines if "stopped after" in line["message"])
    assert (stopped["stage"], stopped["run_date"], stopped["level"]) == (
        "build-sequences",
        night(0),
        "WARNING",
    )
    assert (lines[-1]["exit_code"], lines[-1]["run_id"]) == (3, stopped["run_id"])


def test_a_signal_after_the_night_is_published_changes_no_exit_code(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("batchrec.cli.nightly.print_report", signalled)
    former = signal.getsignal(signal.SIGTERM)
    assert run_cli("run", "--run-date", night(0), "--json") == 0
    assert shop.archive.dates() == [FIRST]
    assert signal.getsignal(signal.SIGTERM) is former
