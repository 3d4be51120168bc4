"""The command explore: what it opens, and how it ends."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from batchrec.explorer.content import Explorer
from tests.support.damage import flip_a_bit
from tests.support.explorers import titles
from tests.support.models import model_of, run_cli, trained_model, training_sequences
from tests.support.night_pages import two_nights
from tests.support.nights import night


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Explorer]:
    """Return the list of what the command would serve."""
    served: list[Explorer] = []
    monkeypatch.setattr("batchrec.explorer.app.serve", lambda explorer, *_: served.append(explorer))
    return served


def labels(explorer: Explorer) -> list[str]:
    return [view.files.label for view in explorer.views]


@pytest.mark.slow
def test_the_address_is_printed_and_ctrl_c_ends_the_command() -> None:
    arguments = ["explore", "--model", trained_model(), "--sequences", training_sequences(), "--items", titles()]
    program = [sys.executable, "-m", "batchrec", *map(str, arguments)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        with urlopen(f"{url}?user=7") as answer:  # noqa: S310 - an address of this machine
            assert "User 7" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (out, err) == ("", "batchrec: interrupted\n")


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sequences = training_sequences()
        assert run_cli("explore", "--model", trained_model(), "--sequences", sequences, "--port", port) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"batchrec: error: --port {port}: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "jinja2"])
def test_a_missing_package_is_one_line(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert run_cli("explore") == 2
    said = capsys.readouterr().err
    assert said.endswith(f"the package {package} is not installed. Install it with pip install 'batchrec[explore]'\n")
    assert len(said.splitlines()) == 1


def test_the_newest_night_is_opened_without_options(opened: list[Explorer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two_nights())
    # Titles are those of score.
    monkeypatch.setenv("BATCHREC_SCORE_ITEMS", str(titles()))
    assert run_cli("explore") == 0
    assert labels(opened[0]) == [f"Night {night(1)}"]
    assert "Film 3, The" in opened[0].page("item=1003").events[0].item.title
    page = opened[0].page("user=3")
    assert page.columns[0].made == "As published."


def test_nights_are_opened_oldest_first(opened: list[Explorer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two_nights())
    assert run_cli("explore", "--night", night(1), "--night", night(0)) == 0
    assert labels(opened[0]) == [f"Night {night(0)}", f"Night {night(1)}"]


def test_a_damaged_night_is_not_among_those_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_nights(), tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    flip_a_bit(tmp_path / "nights" / f"run_date={night(1)}" / "recs.parquet")
    assert run_cli("explore") == 2
    assert capsys.readouterr().err.endswith(f"Pass another --night; found {night(0)}\n")


def test_models_are_opened_with_histories_or_without(
    opened: list[Explorer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = [str(model_of("causal")), str(model_of("masked"))]
    assert run_cli("explore", "--model", models[0], "--model", models[1], "--sequences", training_sequences()) == 0
    assert labels(opened[0]) == models
    assert opened[0].page("").examples == ("1", "2", "3", "4", "5")
    assert run_cli("explore", "--model", models[0]) == 0
    assert opened[1].page("").examples == ()
    assert opened[1].page("user=1").error == "no histories are open. Pass --sequences FILE to batchrec explore"
    assert len(opened[1].page("item=1003").columns[0].rows) == 10


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (lambda: ["--night", "2020-01-01"], 2, "night 2020-01-01 is not published"),
        (lambda: ["--model", "none"], 4, "none"),
        (lambda: ["--model", trained_model(), "--sequences", "none.parquet"], 3, "none.parquet: no such file"),
        (lambda: ["--model", trained_model(), "--items", "none.csv"], 3, "none.csv"),
        (lambda: ["--model", trained_model(), "--top-k", 41], 2, "--top-k 41: the model knows 40 items"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    arguments: Callable[[], list[object]],
    exit_code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(two_nights())
    assert run_cli("explore", *arguments()) == exit_code
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
