"""The command inspect."""

from typing import Any

import click

from batchrec.cli.commands import cli
from batchrec.cli.options import JobCommand, config_of, json_option, log_format_option
from batchrec.cli.output import echo, print_figures, print_report
from batchrec.cli.precedence import resolve_options
from batchrec.config import SequencesConfig
from batchrec.system.terminal import format_table


@cli.command("inspect", cls=JobCommand)
@click.argument("path", type=click.Path())
@log_format_option
@json_option
@click.pass_context
def inspect_command(context: click.Context, /, path: str, json: bool) -> None:
    """Show what a file or a folder is, whether it is whole, its first rows and its figures.

    PATH: a log, histories, a table, a model, a night, or a folder of nights, models, tables or checkpoints. A log is
    read by the options of build-sequences, and columns that it lacks are guessed by their usual names.
    """
    config = config_of(SequencesConfig, resolve_options(context, "build-sequences"))
    from batchrec.inspection.inspect import inspect

    found = inspect(path, config)
    if json:
        print_report(found, json)
        return
    print_figures({"path": found.path, "kind": found.kind, "checked": "; ".join(found.checks), **found.figures})
    if found.columns:
        echo(f"\n{format_table(['column', 'type'], list(found.columns.items()))}")
    if found.head:
        rows = [[_cell(value) for value in row.values()] for row in found.head]
        echo(f"\n{format_table(list(found.head[0]), rows)}")


def _cell(value: Any) -> str:
    text = "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
