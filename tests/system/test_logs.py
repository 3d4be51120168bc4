import json
import logging
import sys
import threading
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.cli.output import print_report
from batchrec.system import logs
from tests.support.models import SMALL, run_cli, training_sequences

_log = logging.getLogger("batchrec.test")

SECRETS = {
    "s3://KEY:SECRET@bucket/x": "s3://KEY:***@bucket/x",
    "s3://KEY:a/b+c@bucket/x": "s3://KEY:***@bucket/x",
    "postgresql://u:p@h/db?sslkey=/k.pem&a=1": "postgresql://u:***@h/db?sslkey=***&a=1",
    "postgresql://u:p@w@h:5432/db": "postgresql://u:***@h:5432/db",
    "https://h/x.csv?X-Amz-Signature=abc&token=t": "https://h/x.csv?X-Amz-Signature=***&token=***",
    "PASSWORD = 'a b' user = c": "PASSWORD = *** user = c",
    '{"webhook_token": "abc", "n": 5}': '{"webhook_token": ***, "n": 5}',
}


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_hidden(text: str) -> None:
    assert logs.redacted(text) == SECRETS[text]
    assert logs.redacted(f"a.csv: {text}, then") == f"a.csv: {SECRETS[text]}, then"


@pytest.mark.parametrize(
    "text", ["http://host:80/a@b", "http://h:80", "12:30 me@x.org", "batch_tokens=4096", "top_k=5"]
)
def test_text_without_secrets_is_not_changed(text: str) -> None:
    assert logs.redacted(text) == text


WORDS = st.text("abcdefgh0123456789!$%*+.-_~", min_size=6)


@given(WORDS, WORDS, st.sampled_from(["password", "token", "api_key", "sig", "X-Amz-Signature", "client-secret"]))
def test_no_secret_is_left(user: str, secret: str, name: str) -> None:
    secret = f"SECRET{secret}"
    text = f"cannot read db://{user}:{secret}@host/path?{name}={secret}&x=1 with {name}='{secret}'"
    assert secret not in logs.redacted(text)
    assert logs.redacted(logs.redacted(text)) == logs.redacted(text)


@given(st.text())
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert logs.redacted(logs.redacted(text)) == logs.redacted(text)


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_has_the_fields_of_the_run_in_every_thread(capsys: pytest.CaptureFixture[str]) -> None:
    # Left by a night that was run from Python.
    logs.add_log_fields(run_date="2024-03-01")
    with logs.logging_to_stderr(logging.INFO):
        logs.set_log_format("json")
        with logs.log_fields(run_id="r1"), logs.log_fields(stage="score"):
            thread = threading.Thread(
                target=lambda: _log.info("two\nlines token=t", extra={"rows": 5, "out": "a://b:c@d"})
            )
            thread.start()
            thread.join()
        _log.warning("after")
        warnings.showwarning(UserWarning("careful"), UserWarning, "file.py", 1)
    first, second, third = json_lines(capsys)
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    assert first == {
        "run_id": "r1",
        "stage": "score",
        "level": "INFO",
        "logger": "batchrec.test",
        "message": "two\nlines token=***",
        "rows": 5,
        "out": "a://b:***@d",
    }
    assert "run_id" not in second
    assert "careful" in third["message"]


def test_text_lines_hide_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.logging_to_stderr(logging.INFO):
        _log.info("reading %s", "s3://KEY:SECRET@bucket/x")
    assert "s3://KEY:***@bucket/x" in capsys.readouterr().err


@pytest.mark.usefixtures("no_export")
def test_training_logs_only_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--sequences", training_sequences(), "--out", tmp_path / "model", "--log-format", "json")
    capsys.readouterr()
    assert run_cli("train", *arguments, *SMALL) == 0
    lines = json_lines(capsys)
    assert {line["level"] for line in lines} == {"INFO"}
    assert any("NDCG@10" in line["message"] for line in lines)


WRONG = [
    ["--sequences", "s3://KEY:SECRET@bucket/x"],
    ["--no-such-option"],
    ["--top-k", "many"],
    ["--top-k"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
@pytest.mark.parametrize("by", ["option", "equals", "environment", "file"])
def test_an_error_is_one_json_line(
    arguments: list[str],
    by: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if by == "environment":
        monkeypatch.setenv("BATCHREC_SCORE_LOG_FORMAT", "json")
    if by == "file":
        Path("batchrec.toml").write_text("[score]\nlog-format = 'json'\n", encoding="utf-8")
    format_options = {"option": ["--log-format", "json"], "equals": ["--log-format=json"]}.get(by, [])
    exit_code = run_cli("score", *format_options, *arguments)
    (line,) = json_lines(capsys)
    assert exit_code in {2, 3, 4}
    assert (line["level"], line["exit_code"]) == ("ERROR", exit_code)
    assert "SECRET" not in line["message"]


def test_a_bug_is_one_json_line_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("batchrec.scoring.publish.score_file", lambda *_: logs.redacted_values({})["bug"])
    assert run_cli("score", "--log-format", "json") == 1
    (line,) = json_lines(capsys)
    assert "KeyError" in line["exc_info"]
    with pytest.raises(KeyError):
        run_cli("score")


def test_progress_bars_are_hidden_between_json_lines() -> None:
    with logs.logging_to_stderr(logging.INFO):
        assert logs.hides_bars() is None
        logs.set_log_format("json")
        assert logs.hides_bars() is True


def test_progress_bars_are_shown_in_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    for config, hides in (({"IPKernelApp": {}}, False), ({"TerminalIPythonApp": {}}, None)):
        shell = SimpleNamespace(config=config)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert logs.hides_bars() is hides
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert logs.hides_bars() is None


@dataclass(frozen=True)
class Report:
    out: str


@pytest.mark.parametrize("as_json", [True, False])
def test_a_report_hides_secrets(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(Report("s3://K:SECRET@b/x"), as_json)
    said = capsys.readouterr().out
    assert "s3://K:***@b/x" in said
    assert "SECRET" not in said
