"""The command line: options to a config, one job, one report. The options themselves stand in config/."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from batchrec.config import (
    BenchConfig,
    EvaluationConfig,
    RecommendConfig,
    ScoringConfig,
    SequencesConfig,
    TrainingConfig,
)
from batchrec.errors import BatchrecError, ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

_EPILOG = (
    "Exit codes: 0 done; 1 a bug, with its traceback; 2 wrong use or configuration; 3 input that breaks its contract; "
    "4 a damaged or unfitting model directory; 5 the device asked for is not there."
)


def _options_of(config_class: type) -> Callable[[Command], Command]:
    """Give a command an option for every field of a config, with the field's name, type, default and help."""
    hints = get_type_hints(config_class)

    def decorate(command: Command) -> Command:
        for field in reversed(fields(config_class)):
            option_type = _option_type(hints[field.name])
            command = click.option(
                f"--{field.name.replace('_', '-')}",
                type=option_type,
                is_flag=option_type is bool,
                default=field.default,
                show_default=field.default is not None and option_type is not bool,
                help=field.metadata["help"],
            )(command)
        return command

    return decorate


def _option_type(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    # A field that may be None is an option that may be left out.
    return next((part for part in get_args(hint) if part is not type(None)), hint)


def _path_option(name: str, default: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.Path(path_type=Path), default=default, show_default=True, help=text)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")


@click.group(context_settings={"max_content_width": 110}, epilog=_EPILOG)
@click.version_option(package_name="batchrec")
def cli() -> None:
    """Top-k recommendations for every user, from a log of who watched, bought or played what, and when."""


@cli.command("build-sequences", epilog=_EPILOG)
@click.option(
    "--ratings",
    multiple=True,
    metavar="PATH",
    help="File, folder or glob of CSV, CSV.gz or Parquet; may be given several times.  [default: ratings.csv]",
)
@_options_of(SequencesConfig)
@_path_option("--out", "sequences.parquet", "Where to write the histories.")
@_json_option
def build_sequences_command(ratings: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Build each user's history, oldest event first, from raw ratings."""
    from batchrec.sequences import build_sequences

    config = SequencesConfig(**options)
    if ratings and config.query is not None:
        raise ConfigError("--ratings and --query exclude each other: pass one of them")
    _print_report(build_sequences(ratings or ("ratings.csv",), config, out), as_json)


@cli.command("train", epilog=_EPILOG)
@_path_option("--sequences", "sequences.parquet", "Histories to train on.")
@_options_of(TrainingConfig)
@_path_option("--out", "model", "Model directory to write; replaces an older one when the new one is complete.")
@_json_option
def train_command(sequences: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train an encoder on the histories, SASRec or BERT4Rec, and export it to ONNX."""
    config = TrainingConfig(**options)
    from batchrec.attempts import resumable
    from batchrec.training.train import train

    with resumable(out) if _is_first_process() else nullcontext() as progress:
        report = train(sequences, config, out, progress)
    if _is_first_process():
        _print_report(report, as_json)


@cli.command("score", epilog=_EPILOG)
@_path_option("--sequences", "sequences.parquet", "Histories of the users to score.")
@_path_option("--model", "model", "Model directory.")
@_options_of(ScoringConfig)
@_path_option("--out", "recs.parquet", "Where to write the recommendations.")
@_json_option
def score_command(sequences: Path, model: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Write the top k items of every user."""
    config = ScoringConfig(**options)
    from batchrec.attempts import resumable
    from batchrec.scoring import score

    with resumable(out) as progress:
        report = score(sequences, model, config, out, progress)
    _print_report(report, as_json)


@cli.command("evaluate", epilog=_EPILOG)
@_path_option("--sequences", "sequences.parquet", "Histories to train and to test on.")
@_options_of(EvaluationConfig)
@_options_of(TrainingConfig)
@_path_option("--out", "evaluation.parquet", "Where to write the results; the report goes beside it as JSON.")
@_json_option
def evaluate_command(sequences: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Show whether the model beats simple methods on your own log, and by how much.

    It is trained on a part of the log with the options of train; what comes after is the test.
    """
    if _is_one_of_several():
        raise ConfigError("evaluate runs in one process: start it without torchrun")
    names = {field.name for field in fields(EvaluationConfig)}
    evaluation = EvaluationConfig(**{name: value for name, value in options.items() if name in names})
    training = TrainingConfig(**{name: value for name, value in options.items() if name not in names})
    from batchrec.evaluation.evaluate import evaluate
    from batchrec.evaluation.scoreboard import scoreboard

    report = evaluate(sequences, evaluation, training, out)
    if as_json:
        _print_report(report, as_json)
        return
    click.echo(scoreboard(report))


@cli.command("bench", epilog=_EPILOG)
@_options_of(BenchConfig)
@_json_option
def bench_command(as_json: bool, **options: Any) -> None:
    """Show how long the night is on this machine, beside what the machine could do.

    A log in the shape of MovieLens is generated; each stage runs on it in a process of its own, several times.
    """
    config = BenchConfig(**options)
    from batchrec.benchmark.bench import bench
    from batchrec.benchmark.table import as_text

    report = bench(config)
    if as_json:
        _print_report(report, as_json)
        return
    click.echo(as_text(report))


@cli.command("recommend", epilog=_EPILOG)
@click.argument("items_seen", nargs=-1, required=True, metavar="TITLE_OR_ID...")
@_path_option("--model", "model", "Model directory.")
@_options_of(RecommendConfig)
@_json_option
def recommend_command(items_seen: tuple[str, ...], model: Path, as_json: bool, **options: Any) -> None:
    """Show what the model recommends after the given items, oldest first."""
    config = RecommendConfig(**options)
    from batchrec.recommending import recommend

    found = recommend(items_seen, model, config)
    if as_json:
        _print_report(found, as_json)
        return
    click.echo("After")
    for item in found.history:
        note = "  (the model does not know it)" if item in found.unknown_to_model else ""
        click.echo(f"      {item.title or item.item_id}{note}")
    click.echo("the model recommends")
    for row in found.recommendations:
        click.echo(f"{row.rank:4}  {row.title or row.item_id}  ({row.score:.2f})")


@cli.command("doctor", epilog=_EPILOG)
@_json_option
def doctor_command(as_json: bool) -> None:
    """Say what this machine has for the jobs, what it lacks for a GPU, and what score runs on."""
    from batchrec.doctor import diagnose

    report = diagnose()
    if as_json:
        _print_report(report, as_json)
        return
    figures = asdict(report)
    del figures["problems"], figures["score_runs_on"]
    if report.gpus is None:
        figures["gpus"] = "torch cannot tell"
    _print_figures(figures)
    for problem in report.problems:
        click.echo(f"\n{problem.what}\n  -> {problem.to_do}")
    click.echo(f"\nscore runs on: {report.score_runs_on}")


def _print_report(report: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        _print_figures(asdict(report))


def _print_figures(values: dict[str, Any]) -> None:
    for name, value in values.items():
        click.echo(f"{name.replace('_', ' '):30} {_in_words(value)}")


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_in_words(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code; what is not a bug is one line on stderr."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("batchrec").setLevel(logging.INFO if _is_first_process() else logging.WARNING)
    try:
        return int(cli.main(arguments, prog_name="batchrec", standalone_mode=False) or 0)
    except BatchrecError as error:
        return _complain(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ConfigError.exit_code
    except click.ClickException as error:
        return _complain(f"{error.format_message()} See batchrec --help", ConfigError.exit_code)
    except click.Abort:
        return _complain("interrupted", 130)


def _is_one_of_several() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _is_first_process() -> bool:
    """Whether this is the one of torchrun's processes that speaks for all, or alone."""
    return not _is_one_of_several() or os.environ["RANK"] == "0"


def _complain(message: str, exit_code: int) -> int:
    # Names of files and columns may hold anything: a line stays a line, and a terminal is told nothing but text.
    line = "".join(c if c.isprintable() else " " for c in " ".join(message.split()))
    click.echo(f"batchrec: error: {line}", err=True)
    return exit_code


def main() -> None:
    """Be the `batchrec` program."""
    sys.exit(run())
