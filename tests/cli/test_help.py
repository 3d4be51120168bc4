"""The help at a terminal: examples, completion, suggestions in place of wrong names, colours."""

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete

from batchrec.cli import cli
from batchrec.cli.config_file import DEFAULT_FILE
from batchrec.cli.examples import EXAMPLES
from batchrec.errors import nearest
from batchrec.sources import guess_column
from batchrec.system.terminal import format_table
from tests.cli.test_commands import CONFIGS
from tests.support.models import run_cli


def commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of each command."""
    yield ()
    for name, command in cli.commands.items():
        yield (name,)
        if isinstance(command, click.Group):
            for within in command.commands:
                yield (name, within)


def context_of(words: list[str]) -> click.Context:
    """Parse a command line, and return the context of its command."""
    context = cli.make_context("batchrec", list(words))
    while isinstance(context.command, click.Group):
        name, *words = [*context._protected_args, *context.args]
        context = context.command.commands[name].make_context(name, words, parent=context)
    return context


def said_by(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run_cli(*arguments) in {2, 3}
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_every_command_has_examples_and_no_other_name_has() -> None:
    assert set(EXAMPLES) == {" ".join(words) for words in commands()}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_examples_are_command_lines_of_their_command(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(line)
    assert program == "batchrec"
    assert words[: len(name.split())] == name.split()
    context = context_of(words)
    for config in CONFIGS.get(words[0], []):
        # Raises ConfigError for a value that the job would refuse.
        config(**{field.name: context.params[field.name] for field in fields(config)})


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_examples_end_the_help(words: tuple[str, ...], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*words, flag) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Examples:")
    examples = EXAMPLES[" ".join(words)]
    assert lines[start + 1 : start + 1 + len(examples)] == [f"  {line}" for line in examples]
    assert lines[start + len(examples) + 2].startswith("  Exit codes:")


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_shells_complete_commands_options_choices_and_paths(shell: type[BashComplete]) -> None:
    complete = shell(cli, {}, "batchrec", "_BATCHREC_COMPLETE")

    def completed(*words: str) -> list[CompletionItem]:
        *before, last = words
        return complete.get_completions(list(before), last)

    assert [item.value for item in completed("sc")] == ["score"]
    assert [item.value for item in completed("models", "ro")] == ["rollback"]
    assert [item.value for item in completed("score", "--top")] == ["--top-k"]
    assert [item.value for item in completed("train", "--objective", "ma")] == ["masked"]
    assert [item.type for item in completed("score", "--sequences", "")] == ["file"]
    assert [item.type for item in completed("inspect", "")] == ["file"]
    assert [item.type for item in completed("build-sequences", "--ratings", "r")] == ["file"]
    assert [item.type for item in completed("score", "--block", "")] == ["file"]


def test_bash_is_given_the_command_that_its_user_began() -> None:
    program = "from batchrec.cli import main; main()"
    variables = {"_BATCHREC_COMPLETE": "bash_complete", "COMP_WORDS": "batchrec sc", "COMP_CWORD": "1"}
    environment = os.environ | variables
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("plain,score\n", "")


def test_wrong_names_are_answered_by_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,1700000000\n", encoding="utf-8")
    assert "Did you mean 'train'? See batchrec --help" in said_by(capsys, "trian")
    assert "Did you mean 'list'? See batchrec models --help" in said_by(capsys, "models", "lst")
    assert "Did you mean '--objective'? See batchrec train --help" in said_by(capsys, "train", "--objectiv", "causal")
    wrong = said_by(capsys, "train", "--objective", "caussal")
    assert "'caussal' is not one of 'causal', 'masked'. Did you mean 'causal'?" in wrong
    assert "Did you mean" not in said_by(capsys, "score", "--device", "gpu")
    log = ("build-sequences", "--ratings", "log.csv")
    found = "found userId, movieId, rating, timestamp; did you mean"
    said = said_by(capsys, *log, "--user-column", "userid")
    assert f"no column 'userid'; {found} 'userId'? Pass --user-column" in said
    said = said_by(capsys, *log, "--min-rating", "3", "--rating-column", "stars")
    assert f"no column 'stars'; {found} 'rating'? Pass --rating-column" in said
    Path(DEFAULT_FILE).write_text("[train]\nobjective = 'sasrec'", encoding="utf-8")
    assert "expected one of causal, masked. causal: predict each next item" in said_by(capsys, "train")


@pytest.mark.parametrize(
    ("wanted", "names", "expected"),
    [
        ("TOPK", ["TOP_K", "TOP_Q"], "TOP_K"),
        ("top_k", ["top-k", "topk-of"], "top-k"),
        ("gpu", ["auto", "cpu"], None),
        ("user id", ["UserId", "uid"], "UserId"),
        ("", ["a"], None),
    ],
)
def test_the_nearest_name_has_nearly_the_same_letters(wanted: str, names: list[str], expected: str | None) -> None:
    assert nearest(wanted, names) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["userId", "movieId", "rating", "timestamp"], ("userId", "movieId", "timestamp", "rating")),
        (["InvoiceNo", "StockCode", "InvoiceDate", "CustomerID"], ("CustomerID", "StockCode", "InvoiceDate", None)),
        (["VISITOR_ID", "sku", "event time", "stars"], ("VISITOR_ID", "sku", "event time", "stars")),
        (["a", "b"], (None, None, None, None)),
    ],
)
def test_columns_are_guessed_by_their_usual_names(columns: list[str], expected: tuple[str | None, ...]) -> None:
    options = ("--user-column", "--item-column", "--timestamp-column", "--rating-column")
    assert tuple(guess_column(option, columns) for option in options) == expected


# A command line that people typed, and a part of the answer.
MISTAKES = {
    "build-sequences log.csv": "pass every value with its option, as in --ratings VALUE",
    "build-sequences --ratings log.csv --item-column userId": "three different columns",
    "build-sequences --ratings log.csv --timestamp-column rating": "as seconds these times are before March 1973",
    "build-sequences --ratings log.csv --min-rating 6": "of 1 rows, 1 (below --min-rating) are left out",
    "build-sequences --query log.sql --min-rating 3": "no column 'rating' for --min-rating",
    "build-sequences --ratings postgresql://ann@host/shop": "expected ?table=schema.name, or ?query= with one SELECT",
    "build-sequences --query scan.sql": "write LOAD and its name before the SELECT",
    "run --run-date yesterday": "expected one like 2026-11-24. See batchrec run --help",
    "train --sequences log.csv": "Pass a file of batchrec build-sequences, which reads logs",
    "train --objective sasrec": "causal: predict each next item from the items before it (SASRec). masked: ",
    "train --device gpu": "cuda: an NVIDIA GPU",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_typical_mistakes_are_one_line_that_says_what_to_do(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,1700000000\n", encoding="utf-8")
    query = "select userId as user_id, movieId as item_id, timestamp from 'log.csv'"
    Path("log.sql").write_text(query, encoding="utf-8")
    Path("scan.sql").write_text("select * from postgres_scan('host=h', 'public', 't')", encoding="utf-8")
    assert MISTAKES[line] in said_by(capsys, *line.split())


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_and_the_width_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = "many words " * 30
    table = (["name", "n"], [["a", "1"], [wide, "20"]])
    plain = format_table(*table, right=[1], alarms=[1])
    assert [line.split() for line in plain.splitlines()] == [["name", "n"], ["a", "1"], [*wide.split(), "20"]]
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    coloured = format_table(*table, right=[1], alarms=[1])
    assert "\x1b[31m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    without = format_table(*table, right=[1], alarms=[1])
    assert "\x1b" not in without
    assert max(map(len, without.splitlines())) <= 60
    # A word is not broken, such as a date, even if the terminal is narrower than the row.
    monkeypatch.setenv("COLUMNS", "20")
    narrow = format_table(["night", "rows"], [["2026-11-24", "1,234,567,890,123"]])
    assert [line.split() for line in narrow.splitlines()] == [["night", "rows"], ["2026-11-24", "1,234,567,890,123"]]


def test_a_row_of_a_table_is_one_line_that_does_not_control_the_terminal() -> None:
    shown = format_table(["a\nb", "id"], [["one\u2028two\r\n", "\x1b]0;title\x07x\u202e"]])
    assert [line.split() for line in shown.split("\n")] == [["a", "b", "id"], ["one", "two", "]0;title", "x"]]


def test_a_table_shows_no_secret() -> None:
    assert "hunter2" not in format_table(["url"], [["postgresql://ann:hunter2@host/shop"]])


def test_errors_are_red_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(stream: io.StringIO) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        assert run_cli("trian") == 2
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in said(Terminal())
    assert "\x1b" not in said(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in said(Terminal())
