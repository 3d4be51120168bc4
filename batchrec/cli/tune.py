"""The command tune."""

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrec.cli.commands import cli
from batchrec.cli.config_edit import set_options
from batchrec.cli.config_file import DEFAULT_FILE
from batchrec.cli.options import JobCommand, config_of, json_option, log_format_option, options_of, path_option
from batchrec.cli.output import echo, print_report
from batchrec.cli.precedence import resolve_options, variable_of
from batchrec.cli.torchrun import is_one_of_several
from batchrec.config import ScoringConfig, TrainingConfig, TuneConfig
from batchrec.errors import ConfigError
from batchrec.system.atomic import check_writable_file
from batchrec.system.json_text import to_json
from batchrec.system.stores import needs_extra
from batchrec.system.terminal import format_table

if TYPE_CHECKING:
    from batchrec.tuning.tune import TuneReport


@cli.command("tune", cls=JobCommand)
@path_option("--sequences", "sequences.parquet", "Histories to train on.")
@options_of(TuneConfig)
@click.option(
    "--write", is_flag=True, default=False, help="Write what the best trial changed into [train] of batchrec.toml."
)
@log_format_option
@json_option
@click.pass_context
def tune_command(context: click.Context, /, sequences: Path, write: bool, json: bool, **options: Any) -> None:
    """Look for options of train that rank held-out items better.

    It needs the packages of batchrec[tune]. Each trial is a training that keeps no model, with the options of train in
    batchrec.toml or the environment, except those that are tried.
    """
    if is_one_of_several():
        raise ConfigError("tune runs in one process: start it without torchrun")
    scoring = config_of(ScoringConfig, resolve_options(context, "score"))
    config = TuneConfig(**options)
    training = config_of(TrainingConfig, resolve_options(context, "train")).for_lists_of(scoring)
    file = context.find_root().params["config"] or Path(DEFAULT_FILE)
    if write:
        # Now, not after an hour of trials.
        check_writable_file(file, "--config")
        _check_environment(config.searched, file)
        with needs_extra("--write", "tune"):
            import_module("tomlkit")
    from batchrec.tuning.tune import tune

    report = tune(sequences, config, training)
    if json:
        print_report(report, json)
    else:
        echo(_format(report))
    if write and report.options:
        set_options(file, "train", report.options)
    if not json and report.options:
        echo(f"\n{file}: written" if write else f"\nPass --write to have this written to {file}")


def _check_environment(searched: Iterable[str], file: Path) -> None:
    """Raise ConfigError if the environment sets an option that is searched: what is written would have no effect."""
    for variable in (variable_of("train", name) for name in searched):
        if os.environ.get(variable):
            raise ConfigError(
                f"environment variable {variable}: takes precedence over {file}, which --write changes. Unset it, and "
                "set the option in the file"
            )


def _format(report: "TuneReport") -> str:
    """Format the trials as a table with a mark at the best one, and what it changed as a table of batchrec.toml."""
    names = list(report.trials[0].options)
    rows = [
        [
            "*" if trial.number == report.best else "",
            str(trial.number),
            *(_shown(value) for value in trial.options.values()),
            "none" if trial.ndcg_at_10 is None else f"{trial.ndcg_at_10:.4f}",
            f"{trial.best_epoch} of {trial.epochs}",
            trial.ended_by,
            f"{trial.seconds:.0f}",
        ]
        for trial in report.trials
    ]
    heads = ["", "trial", *names, "NDCG@10", "best epoch", "ended by", "seconds"]
    table = format_table(heads, rows, range(1, len(heads)))
    if not report.options:
        return f"{table}\n\nNo trial is better than the options as they are"
    changed = [_toml(name, value) for name, value in report.options.items()]
    return "\n".join([table, "", "[train]", *changed])


def _shown(value: Any) -> str:
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _toml(name: str, value: Any) -> str:
    return f"# remove {name}" if value is None else f"{name} = {to_json(value)}"
