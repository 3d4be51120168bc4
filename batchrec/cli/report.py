"""The command report."""

from datetime import date
from pathlib import Path
from typing import Any

import click

from batchrec.cli.commands import cli
from batchrec.cli.nightly import catalogue_of, open_archive, open_registry
from batchrec.cli.options import Date, JobCommand, log_format_option, options_of, path_option
from batchrec.cli.output import echo
from batchrec.config import ReportConfig


@cli.command("report", cls=JobCommand)
@click.option("--run-date", type=Date(), metavar="YYYY-MM-DD", help="Night to show. Default: the newest one.")
@options_of(ReportConfig)
@path_option("--out", "report.html", "File to write the page to.")
@log_format_option
@click.pass_context
def report_command(context: click.Context, /, run_date: date | None, out: Path, **options: Any) -> None:
    """Write a page about a night: one HTML file with its gates, figures, changes and sample users.

    It needs the packages of batchrec[report]. Nights, models and catalogue are those of run and score in
    batchrec.toml.
    """
    config = ReportConfig(**options)
    from batchrec.nightly.page import NightPages

    pages = NightPages(open_archive(context), open_registry(context), catalogue_of(context))
    night = pages.write_to(out, run_date, config)
    echo(f"{out}: the page of night {night}")
