import json
import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click
import pytest

from batchrec.cli import cli
from batchrec.cli.options import ConfigOption
from batchrec.config import (
    BenchConfig,
    DiffConfig,
    EvaluationConfig,
    ExploreConfig,
    PublishingConfig,
    RecommendConfig,
    ReportConfig,
    RunConfig,
    ScoringConfig,
    SequencesConfig,
    SimilarConfig,
    TrainingConfig,
    TuneConfig,
    VectorsConfig,
)
from batchrec.config.options import Exclusive
from batchrec.errors import ConfigError
from tests.support.models import names_in, run_cli, trained_model, training_histories, write_sequences

CONFIGS: dict[str, list[type[Any]]] = {
    "build-sequences": [SequencesConfig],
    "train": [TrainingConfig],
    "score": [ScoringConfig],
    "commit": [PublishingConfig],
    "similar": [SimilarConfig],
    "export-vectors": [VectorsConfig],
    "evaluate": [EvaluationConfig, TrainingConfig],
    "bench": [BenchConfig],
    "recommend": [RecommendConfig],
    "doctor": [],
    "init": [],
    "nights": [],
    "report": [ReportConfig],
    "explore": [ExploreConfig],
    "tune": [TuneConfig],
    "run": [RunConfig],
    "rollback": [],
    "models": [],
    "diff": [DiffConfig],
    "inspect": [],
}
OF_THE_COMMAND = {
    "build-sequences": {"ratings", "out", "log_format", "json"},
    "train": {"sequences", "out", "track", "log_format", "json"},
    "score": {"sequences", "model", "out", "log_format", "json"},
    "commit": {"shards", "out", "log_format", "json"},
    "similar": {"model", "out", "log_format", "json"},
    "export-vectors": {"sequences", "model", "out", "log_format", "json"},
    "evaluate": {"sequences", "out", "log_format", "json"},
    "bench": {"json"},
    "recommend": {"model", "sequences", "json", "items_seen"},
    "doctor": {"json"},
    "init": {"out"},
    "nights": {"log_format", "json"},
    "report": {"run_date", "out", "log_format"},
    "explore": {"log_format"},
    "tune": {"sequences", "write", "log_format", "json"},
    "run": {"config", "run_date", "metrics_file", "dry_run", "log_format", "json"},
    "rollback": {"to"},
    "models": set(),
    "diff": {"nights", "log_format", "json"},
    "inspect": {"path", "log_format", "json"},
}
DEFAULTS = {"sequences": "sequences.parquet", "model": "model"}
OUTS = {
    "build-sequences": "sequences.parquet",
    "train": "model",
    "score": "recs.parquet",
    "commit": "recs.parquet",
    "similar": "similar.parquet",
    "export-vectors": "vectors",
    "evaluate": "evaluation.parquet",
    "report": "report.html",
    "init": "batchrec.toml",
}


def config_fields(command: str) -> list[Field[Any]]:
    return [field for config in CONFIGS[command] for field in fields(config)]


def test_there_are_no_other_commands() -> None:
    assert set(cli.commands) == set(CONFIGS)


@pytest.mark.parametrize("command", CONFIGS)
def test_every_field_is_an_option_with_the_same_default(command: str) -> None:
    options = {option.name: option for option in cli.commands[command].params}
    for field in config_fields(command):
        option = options[field.name]
        assert isinstance(option, click.Option)
        assert option.default == field.default
        assert type(option.default) is type(field.default)
        assert option.opts == [f"--{field.name.replace('_', '-')}"]
        assert option.help == field.metadata["help"]
        assert option.help
        assert isinstance(option, ConfigOption)
        assert option.bounds == field.metadata["bounds"]


@pytest.mark.parametrize("command", CONFIGS)
def test_no_option_lacks_a_field(command: str) -> None:
    names = {option.name for option in cli.commands[command].params}
    assert names == {field.name for field in config_fields(command)} | OF_THE_COMMAND[command]


@pytest.mark.parametrize("command", CONFIGS)
def test_no_two_options_of_a_command_share_a_name(command: str) -> None:
    names = [option.name for option in cli.commands[command].params]
    assert sorted(names, key=str) == sorted(set(names), key=str)


@pytest.mark.parametrize("command", CONFIGS)
def test_paths_have_the_nightly_jobs_defaults(command: str) -> None:
    options = {option.name: option.default for option in cli.commands[command].params}
    for name, default in DEFAULTS.items():
        # explore takes those of the nights first, and repeats --model.
        assert str(options.get(name) or default) == default
    assert str(options.get("out")) == OUTS.get(command, "None")


def test_options_reach_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[object] = []

    def score(*arguments: object) -> None:
        given.extend(arguments)
        raise click.Abort

    monkeypatch.setattr("batchrec.scoring.publish.score_file", score)
    options = ("--top-k", 20, "--keep-seen", "--users", "u.csv", "--items", "m.csv", "--chunk-size", 5)
    run_cli("score", "--sequences", "s", "--model", "m", "--out", "o", *options)
    config = ScoringConfig(top_k=20, keep_seen=True, users="u.csv", items="m.csv", chunk_size=5)
    assert given == [Path("s"), Path("m"), config, Path("o"), Path.cwd() / ".o.progress", None]
    assert not list(Path.cwd().iterdir())


def test_options_of_an_evaluation_reach_their_config(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def evaluate(*arguments: object) -> None:
        given.extend(arguments)
        raise click.Abort

    monkeypatch.setattr("batchrec.evaluation.evaluate.evaluate", evaluate)
    options = ("--protocol", "temporal", "--test-days", "1.5", "--top-k", 5, "--recs", "a.csv", "--recs", "b.csv")
    run_cli("evaluate", *options, "--seed", 3, "--max-len", 20)
    evaluation = EvaluationConfig(protocol="temporal", test_days=1.5, top_k=5, recs=("a.csv", "b.csv"))
    training = TrainingConfig(seed=3, max_len=20)
    assert given == [Path("sequences.parquet"), evaluation, training, Path("evaluation.parquet")]


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in CONFIGS)])
def test_help_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*arguments) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Usage: batchrec")
    assert "Exit codes: " in said.out
    assert ("99 nothing to do" in " ".join(said.out.split())) is (arguments == ["--help"])
    assert said.err == ""


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command in CONFIGS:
        run_cli(command, "--help")
        text = capsys.readouterr().out
        for option in cli.commands[command].params:
            assert option.opts[0] in text or isinstance(option, click.Argument)


# A rating may be any number.
NUMBERS = [
    (command, field)
    for command in CONFIGS
    for field in config_fields(command)
    if field.type in (int, int | None, float, float | None) and field.name != "min_rating"
]


@pytest.mark.parametrize(("command", "field"), NUMBERS, ids=lambda value: getattr(value, "name", value))
def test_the_range_of_a_number_is_in_help_and_checked(
    command: str, field: Field[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bounds, name = field.metadata["bounds"], f"--{field.name.replace('_', '-')}"
    (config,) = (config for config in CONFIGS[command] if field in fields(config))
    run_cli(command, "--help")
    (text,) = re.findall(rf"^  {name} .*?(?=\n  --)", capsys.readouterr().out, flags=re.MULTILINE | re.DOTALL)
    assert bounds.inequality in "".join(text.split())
    assert bounds.minimum is not None
    steps = [-1e-9, 1e-9] if field.type in (float, float | None) else [-1, 1]
    for bound, step in zip((bounds.minimum, bounds.maximum), steps, strict=True):
        if bound is None:
            continue
        outside = bound if isinstance(bound, Exclusive) else bound + step
        inside = bound - step if isinstance(bound, Exclusive) else bound
        assert inside in bounds
        with pytest.raises(ConfigError, match=re.escape(f"{name} {outside}: expected {bounds}")):
            config(**{field.name: outside})


WRONG_USE = [
    ["train", "--no-such-option"],
    ["score", "--no-such-option", "1"],
    ["build-sequences", "--no-such-option"],
    ["recommend", "--no-such-option"],
    ["no-such-command"],
    ["--no-such-option"],
    ["score", "surplus"],
    ["doctor", "surplus"],
    ["train", "--max-len"],
    ["train", "--max-len", "many"],
    ["train", "--learning-rate", "0,1"],
    ["train", "--device", "tpu"],
    ["evaluate", "--init-from", "model"],
    ["recommend"],
    ["build-sequences", "--repeats", "some"],
    ["build-sequences", "--ratings", "r.csv", "--query", "q.sql"],
    ["build-sequences", "--max-bad-rows", "some"],
    ["evaluate", "--no-such-option"],
    ["evaluate", "--protocol", "random"],
    ["evaluate", "--protocol", "temporal", "--cut", "yesterday"],
    ["evaluate", "--protocol", "temporal", "--cut", "2024-06-01", "--test-days", "7"],
    ["evaluate", "--cut", "2024-06-01"],
    ["evaluate", "--test-days", "7"],
    ["evaluate", "--question", "last"],
    ["evaluate", "--split", "split.csv"],
    ["evaluate", "--protocol", "split"],
    ["evaluate", "--protocol", "split", "--split", "split.csv", "--test-days", "7"],
    ["evaluate", "--recs", "recs.parquet", "--recs", "recs.parquet"],
    ["evaluate", "--protocol", "temporal", "--test-days", "0"],
    ["evaluate", "--protocol", "temporal", "--test-days", "nan"],
    ["evaluate", "--protocol", "temporal", "--test-days", "inf"],
    ["evaluate", "--top-k", "0"],
    ["evaluate", "--test-users", "0"],
    ["evaluate", "--popular-days", "0"],
    ["evaluate", "--popular-days", "1000001"],
    ["evaluate", "--als-factors", "0"],
    ["evaluate", "--n-resamples", "99"],
    ["evaluate", "--mask-prob", "1"],
    ["explore", "--model", "a", "--model", "b", "--model", "c"],
    ["explore", "--night", "yesterday"],
    ["explore", "--night", "2026-11-24", "--model", "a"],
    ["explore", "--port", "65536"],
]


@pytest.mark.parametrize("arguments", WRONG_USE, ids=" ".join)
def test_wrong_use_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("batchrec: error: ")
    assert names_in(tmp_path) == set()


def test_evaluate_does_not_run_under_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    assert run_cli("evaluate") == 2
    assert "one process" in capsys.readouterr().err


def test_an_error_is_one_line_for_any_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("score", "--sequences", "no\nsuch\x1b[31m\rfile", "--model", trained_model(), "--out", "r") == 3
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said


def test_without_a_command_the_help_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli() == 2
    said = capsys.readouterr()
    assert "Usage: batchrec" in (said.out + said.err)
    assert len((said.out + said.err).splitlines()) > 10


def test_json_is_one_line_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,timestamp\n1,1001,1577836805\n1,1002,1577836806\n", encoding="utf-8"
    )
    sequences, out = tmp_path / "sequences.parquet", tmp_path / "recs.parquet"
    commands: list[tuple[object, ...]] = [
        ("build-sequences", "--ratings", tmp_path / "ratings.csv", "--out", sequences),
        ("score", "--sequences", sequences, "--model", trained_model(), "--out", out, "--device", "cpu"),
        ("recommend", "--model", trained_model(), "1001"),
    ]
    for command in commands:
        assert run_cli(*command, "--json") == 0
        said = capsys.readouterr().out
        assert len(said.splitlines()) == 1
        assert isinstance(json.loads(said), dict)


def test_the_report_names_each_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    arguments = ("--sequences", sequences, "--model", trained_model(), "--out", tmp_path / "r", "--device", "cpu")
    assert run_cli("score", *arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["users", "60"] in lines
    assert ["rows", "600"] in lines
    assert ["users", "by", "model", "60"] in lines
