"""The command explore."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrec.cli.commands import cli
from batchrec.cli.nightly import catalogue_of, open_archive, open_registry
from batchrec.cli.options import JobCommand, log_format_option, options_of
from batchrec.cli.output import echo
from batchrec.config import ExploreConfig

if TYPE_CHECKING:
    from batchrec.explorer.views import ViewFiles


@cli.command("explore", cls=JobCommand)
@options_of(ExploreConfig)
@log_format_option
@click.pass_context
def explore_command(context: click.Context, /, **options: Any) -> None:
    """Open a page on this machine: find users, see their lists and why, change a history and see the list move.

    It needs the packages of batchrec[explore]. It shows published nights with their models, or any models. It only
    reads, and only a browser on this machine can open it. Ctrl-C ends it.
    """
    config = ExploreConfig(**options)
    from batchrec.explorer.app import check_installed, serve

    check_installed()
    if config.items is None:
        config = replace(config, **vars(catalogue_of(context)))
    views, histories = _files(context, config)
    from batchrec.explorer.content import Explorer
    from batchrec.explorer.views import open_view
    from batchrec.tables.sequences_table import open_sequences

    # Without histories the page still recommends after items.
    table = open_sequences(histories) if config.sequences is not None or histories.is_file() else None
    explorer = Explorer([open_view(files, config) for files in views], table)
    serve(explorer, config.port, lambda url: echo(f"{url}  (Ctrl-C ends it)"))


def _files(context: click.Context, config: ExploreConfig) -> "tuple[list[ViewFiles], Path]":
    """Return the files of the views, and the histories."""
    from batchrec.explorer.views import ViewFiles
    from batchrec.nightly.night_views import histories_of, night_views

    archive = open_archive(context)
    nights = config.nights or ([] if config.model else archive.dates()[-1:])
    default = histories_of(archive) if nights else None
    histories = Path(config.sequences or default or "sequences.parquet")
    if not nights:
        return [ViewFiles(model, Path(model)) for model in config.model or ["model"]], histories
    return night_views(archive, open_registry(context), nights, histories), histories
