import json
from pathlib import Path

import click
import pytest

from batchrec.cli import cli, resolve_options
from batchrec.cli.config_file import FileOption, read_config_file
from batchrec.cli.precedence import file_options, read_defaults
from batchrec.config import ScoringConfig, SequencesConfig
from batchrec.errors import ConfigError
from tests.support.models import run_cli

RUN = {
    "train": file_options(cli.commands["train"]),
    "run": {"train-every": FileOption("train_every", "text"), "gate-min-ndcg": FileOption("gate_min_ndcg", "a number")},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "batchrec.toml") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that holds the arguments of score after a call."""
    given: list[object] = []

    def score(*arguments: object) -> None:
        given[:] = arguments
        raise click.Abort

    monkeypatch.setattr("batchrec.scoring.publish.score_file", score)
    return given


def built_from(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[object, object]:
    """Return the ratings and the config that reach build-sequences."""
    given: list[object] = []

    def build_sequences(*arguments: object) -> None:
        given[:] = arguments
        raise click.Abort

    monkeypatch.setattr("batchrec.sequences.build.build_sequences", build_sequences)
    assert run_cli("build-sequences", *arguments) == 130
    return given[0], given[1]


def test_precedence_is_command_line_environment_file_default(
    given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    write('[score]\ntop-k = 1\nchunk_size = 1\nworkers = 1\nkeep-seen = true\nout = "o"\nprecision = "fp16"\n')
    monkeypatch.setenv("BATCHREC_SCORE_TOP_K", "2")
    monkeypatch.setenv("BATCHREC_SCORE_WORKERS", "2")
    monkeypatch.setenv("BATCHREC_SCORE_PRECISION", "")
    run_cli("score", "--top-k", 3)
    config = ScoringConfig(top_k=3, workers=2, chunk_size=1, keep_seen=True, precision="fp16")
    assert given[:4] == [Path("sequences.parquet"), Path("model"), config, Path("o")]


def test_a_file_cannot_name_another_file_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    write('[run]\nconfig = "other.toml"\n')
    assert run_cli("run", "--dry-run") == 2
    assert "batchrec.toml: [run] has no option 'config'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BATCHREC_SCORE_TOPK", "BATCHREC_SCORE_TOP_K"),
        ("BATCHREC_SCOER_TOP_K", "BATCHREC_SCORE_TOP_K"),
        ("BATCHREC_BUILDSEQUENCES_MIN_RATING", "BATCHREC_BUILD_SEQUENCES_MIN_RATING"),
        ("BATCHREC_MODELS_PRUNE_KEPT", "BATCHREC_MODELS_PRUNE_KEEP"),
        ("BATCHREC_CONFG", "BATCHREC_CONFIG"),
    ],
)
def test_an_unknown_variable_is_an_error_with_the_nearest_name(
    name: str, meant: str, given: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "5")
    assert run_cli("score") == 2
    said = capsys.readouterr().err
    assert f"environment variable {name}: names no option" in said
    assert f"Did you mean {meant}?" in said
    assert not given
    monkeypatch.setenv(name, "")
    run_cli("score")
    assert given


def test_an_unknown_variable_like_no_option_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATCHREC_QQQQ", "1")
    assert run_cli("run", "--dry-run") == 2
    assert "BATCHREC_QQQQ: names no option" in capsys.readouterr().err


def test_every_option_of_a_command_can_be_a_variable(given: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHREC_RUN_GATE_MIN_INPUT", "0.3")
    monkeypatch.setenv("BATCHREC_RUN_CONFIG", "none.toml")
    monkeypatch.setenv("BATCHREC_SCORE_ITEM_COLUMN", "sku")
    monkeypatch.setenv("BATCHREC_SCORE_LOG_FORMAT", "json")
    monkeypatch.setenv("BATCHREC_DATA", "of the tests")
    run_cli("score")
    assert isinstance(given[2], ScoringConfig)
    assert given[2].item_column == "sku"


def test_config_names_another_file(given: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    write("[score]\ntop-k = 1\n")
    write("[score]\nworkers = 4\n", "other.toml")
    run_cli("--config", "other.toml", "score")
    assert given[2] == ScoringConfig(workers=4)
    monkeypatch.setenv("BATCHREC_CONFIG", "other.toml")
    run_cli("score")
    assert given[2] == ScoringConfig(workers=4)


def test_a_file_named_by_config_must_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--config", "none.toml", "doctor") == 2
    assert "none.toml: cannot be read" in capsys.readouterr().err


def test_the_config_of_run_replaces_that_of_batchrec(capsys: pytest.CaptureFixture[str]) -> None:
    write("[run]\nkeep = 0\n", "run.toml")
    write("[run]\nkeep = -1\n", "all.toml")
    for arguments in (["--config", "all.toml", "run", "--config", "run.toml"], ["--config", "run.toml", "run"]):
        assert run_cli(*arguments) == 2
        assert "--keep 0: expected 1 or more" in capsys.readouterr().err
    assert run_cli("--config", "none.toml", "run", "--config", "run.toml") == 2
    assert "none.toml: cannot be read" in capsys.readouterr().err


def test_help_is_shown_whatever_the_file_of_options_is(capsys: pytest.CaptureFixture[str]) -> None:
    write("[run\n")
    for arguments in (["run", "--help"], ["run", "--config", "batchrec.toml", "--help"]):
        assert run_cli(*arguments) == 0
        assert "Usage: batchrec run" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["run"], ["run", "--config", "batchrec.toml"]], ids=" ".join)
def test_an_error_in_the_file_of_run_has_the_log_format_of_run(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write("[run\n")
    assert run_cli(*arguments, "--log-format", "json") == 2
    line = json.loads(capsys.readouterr().err)
    assert line["exit_code"] == 2
    assert "batchrec.toml: not TOML" in line["message"]


def test_of_ratings_and_query_the_one_of_higher_precedence_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[build-sequences]\nquery = "q.sql"\n')
    assert built_from(monkeypatch) == (("ratings.csv",), SequencesConfig(query="q.sql"))
    assert built_from(monkeypatch, "--ratings", "r.csv") == (("r.csv",), SequencesConfig())
    write('[build-sequences]\nratings = ["a b.csv", "c.csv"]\n')
    assert built_from(monkeypatch) == (("a b.csv", "c.csv"), SequencesConfig())
    assert built_from(monkeypatch, "--query", "q.sql") == (("ratings.csv",), SequencesConfig(query="q.sql"))
    monkeypatch.setenv("BATCHREC_BUILD_SEQUENCES_QUERY", "e.sql")
    assert built_from(monkeypatch) == (("ratings.csv",), SequencesConfig(query="e.sql"))


def test_a_text_in_place_of_a_list_is_its_only_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[build-sequences]\nratings = "plays/"\n')
    assert built_from(monkeypatch)[0] == ("plays/",)


WRONG = {
    "[scores]\ntop-k = 1": "'score'",
    "top-k = 1": "'top-k'",
    "score = 1": "[score]",
    "[score]\ntop_l = 1": "did you mean 'top-k'?",
    "[score.more]\nthings = 1": "'more-things'",
    "[score]\ntop-k = 1\ntop_k = 2": "twice",
    "[score]\ntop-k = '5'": "found '5'; expected an integer",
    "[score]\ntop-k = true": "found true; expected an integer",
    "[score]\ntop-k = 5.0": "found 5.0; expected an integer",
    "[score]\ntop-k = [5]": "found a list; expected an integer",
    "[score.top-k]\nmany = 5": "found a table; expected an integer",
    "[score]\nkeep-seen = 'true'": "found 'true'; expected true or false",
    "[score]\nkeep-seen = 1": "expected true or false",
    "[score]\ndevice = 'tpu'": "expected one of auto, cuda, cpu",
    "[score]\ndevice = 1": "expected one of auto, cuda, cpu",
    '[score]\nusers = "a\\u0000"': "found 'a\\x00'; expected text",
    "[score]\nout = true": "found true; expected text",
    "[score]\nitems = ['a', 'b']": "found a list; expected text",
    "[train]\nlearning-rate = '1e-3'": "expected a number",
    "[train]\nlearning-rate = true": "expected a number",
    f"[train]\nlearning-rate = 1{'0' * 400}": "expected a number",
    "[build-sequences]\nratings = [1.5]": "expected text, or a list of it",
    "[build-sequences]\nratings = 'r'\nquery = 'q'": "exclude each other",
    "[init]\nout = 'x'": "no command 'init'",
    "[rollback]\nto = '2024-01-01'": "no command 'rollback'",
    "[run]\nevery = '7d'": "no option 'every'",
    "[train]\nevery = 7.5": "expected text",
    "[score]\ntop-k = \nworkers = 1": "line 2",
}


@pytest.mark.parametrize("text", WRONG)
def test_an_error_in_the_file_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(text)
    assert run_cli("build-sequences") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert WRONG[text] in line
    assert "batchrec.toml: " in line or "exclude" in line


def test_a_file_that_is_not_text_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("batchrec.toml").write_bytes(b"[score]\nout = '\xff'")
    assert run_cli("doctor") == 2
    assert "batchrec.toml: not UTF-8" in capsys.readouterr().err


def test_tables_within_a_table_are_part_of_the_key() -> None:
    file = write('train.every = "7d"\ntrain.max-epochs = 3\n[run.gate]\nmin-ndcg = 1\n')
    assert read_config_file(file, RUN) == {
        "run": {"train_every": "7d", "gate_min_ndcg": 1},
        "train": {"max_epochs": 3},
    }
    assert read_config_file(write('[run.train]\nevery = "7d"\n'), RUN) == {"run": {"train_every": "7d"}}
    with pytest.raises(ConfigError, match="twice"):
        read_config_file(write('[train]\nevery = "7d"\n[run]\ntrain-every = "1d"\n'), RUN)


def test_dates_and_integers_are_accepted_as_text() -> None:
    write("[evaluate]\ncut = 2024-06-01\n[build-sequences]\nmax-bad-rows = 100\n[train]\nmax-minutes = 5\n")
    assert read_defaults(cli, None) == {
        "evaluate": {"cut": "2024-06-01"},
        "build-sequences": {"max_bad_rows": "100"},
        "train": {"max_minutes": 5},
    }
    file = write("[evaluate]\ncut = 2024-06-01T12:00:00Z\n")
    assert read_defaults(cli, file) == {"evaluate": {"cut": "2024-06-01T12:00:00+00:00"}}


def test_a_running_command_reads_the_options_of_other_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[score]\ntop-k = 5\nworkers = 1\nlog-format = "json"\n[build-sequences]\nquery = "q.sql"\n')
    monkeypatch.setenv("BATCHREC_SCORE_WORKERS", "2")
    monkeypatch.setenv("BATCHREC_BUILD_SEQUENCES_RATINGS", "a.csv b.csv")
    with cli.make_context("batchrec", ["doctor"]) as root:
        root.default_map = read_defaults(cli, None)
        with cli.commands["doctor"].make_context("doctor", [], parent=root) as context:
            score = resolve_options(context, "score")
            sequences = resolve_options(context, "build-sequences")
    own = {name: score.pop(name) for name in ("sequences", "model", "out", "json")}
    assert ScoringConfig(**score) == ScoringConfig(top_k=5, workers=2)
    assert own == {
        "sequences": Path("sequences.parquet"),
        "model": Path("model"),
        "out": "recs.parquet",
        "json": 0,
    }
    assert (sequences["ratings"], sequences["query"]) == (("a.csv", "b.csv"), None)
