"""The reports of nights: what is written, and what is read of a damaged one."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import ConfigError, InputError
from batchrec.nightly.report import read_report, report_to_json
from batchrec.nightly.rollback import roll_back
from batchrec.system.json_text import to_json
from tests.support.models import run_cli, training_histories
from tests.support.nights import FIRST, Company, night, report_of
from tests.support.params import slow_except


def test_a_report_with_a_changed_digit_is_left_out(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        shop.run(number)
    report = report_of(shop, 0)
    text = report.read_text(encoding="utf-8")
    n_rows = read_report(report, FIRST)
    assert n_rows is not None
    rows = n_rows["stages"]["build-sequences"]["rows_read"]
    assert text.count(f'"rows_read": {rows}') == 1
    report.write_text(text.replace(f'"rows_read": {rows}', f'"rows_read": {rows + 1}'), encoding="utf-8")
    shop.run(2)
    assert f"night {FIRST}: its report is lost or damaged, and is left out" in caplog.text


def test_a_report_of_an_earlier_version_without_a_seal_counts(shop: Company) -> None:
    shop.run()
    kept = json.loads(report_of(shop, 0).read_text(encoding="utf-8"))
    seal = kept.pop("seal")
    report_of(shop, 0).write_text(json.dumps(kept, indent=2), encoding="utf-8")
    assert read_report(report_of(shop, 0), FIRST) == kept
    # A seal under a changed name is damage, not a missing seal.
    report_of(shop, 0).write_text(json.dumps(kept | {"saal": seal}), encoding="utf-8")
    assert read_report(report_of(shop, 0), FIRST) is None


@pytest.mark.parametrize("text", ["[" * 200_000, '{"stages":' * 100_000, "1" * 100_000, "NaN", "3", "[]", '"text"'])
def test_text_that_is_not_a_report_counts_as_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    assert read_report(tmp_path / "report.json", FIRST) is None


def test_a_pipe_in_place_of_a_report_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json", FIRST) is None


@pytest.mark.slow
def test_a_rollback_skips_a_report_that_is_nested_too_deeply(shop: Company) -> None:
    for number in range(3):
        shop.run(number)
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(3)
    report_of(shop, 2).write_text("[" * 200_000, encoding="utf-8")
    assert roll_back(shop.archive) == night(1)


@pytest.mark.parametrize(
    "text",
    slow_except({"half": "{", "list": "[]", "null": "null", "deep": "[" * 200_000, "no dates": '{"a": ""}'}, "half"),
)
def test_a_list_of_rollbacks_that_cannot_be_read_fails_the_night(shop: Company, text: str) -> None:
    shop.run(0)
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(1)
    assert roll_back(shop.archive) == night(0)
    rolled_back, out = shop.folder / "nights" / "rolled-back.json", Path(shop.jobs.out).read_bytes()
    rolled_back.write_text(text, encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"rolled-back\.json: cannot be read; .*Restore it, or remove it if no"
    ) as error:
        shop.run(1)
    assert (error.value.exit_code, Path(shop.jobs.out).read_bytes()) == (2, out)


def test_a_folder_in_place_of_the_list_of_rollbacks_is_refused(shop: Company) -> None:
    (shop.archive.decisions.folder / "rolled-back.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"rolled-back\.json: cannot be read"):
        shop.archive.decisions.is_rolled_back(night(0), "0")


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_number_that_is_not_finite_is_null() -> None:
    value = {"a": [math.nan, 1.5, (math.inf,)], "b": -math.inf, "c": "inf", "d": True}
    assert strict(to_json(value)) == {"a": [None, 1.5, [None]], "b": None, "c": "inf", "d": True}


def test_a_report_is_valid_json_even_with_nan(shop: Company) -> None:
    shop.run()
    report = read_report(report_of(shop, 0), FIRST)
    assert report is not None
    report["checks"] = [{"gate": "input", "figure": "x", "value": math.nan, "maximum": math.inf}]
    file = shop.folder / "report.json"
    file.write_text(report_to_json(report), encoding="utf-8")
    assert strict(file.read_text(encoding="utf-8"))["checks"][0]["value"] is None
    read = read_report(file, FIRST)
    assert read is not None
    assert read["checks"][0] == {"gate": "input", "figure": "x", "value": None, "maximum": None}


def test_a_log_line_is_valid_json_even_with_nan(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*_: Any, **__: Any) -> None:
        logging.getLogger("batchrec.x").warning("measured", extra={"counts": {"loss": math.nan}})
        raise InputError("x")

    monkeypatch.setattr("batchrec.nightly.run.run", measured)
    monkeypatch.chdir(shop.folder)
    assert run_cli("run", "--log-format", "json") == 3
    lines = [strict(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["counts"] == {"loss": None}
