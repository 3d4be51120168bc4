"""The command nights."""

from datetime import date

import click

from batchrec.cli.commands import cli
from batchrec.cli.nightly import open_archive
from batchrec.cli.options import JobCommand, json_option, log_format_option
from batchrec.cli.output import echo, echo_json
from batchrec.system.terminal import format_table


@cli.command("nights", cls=JobCommand)
@json_option
@log_format_option
@click.pass_context
def nights_command(context: click.Context, /, json: bool) -> None:
    """List the nights that are kept, oldest first, with a mark at those whose table is out, and why some failed."""
    from batchrec.report_page.cells import shown_rows
    from batchrec.report_page.night_sections import NIGHT_COLUMNS, night_row

    archive = open_archive(context)
    current = archive.current_nights()
    reports = {report["run_date"]: report for report in archive.reports(archive.dates())}
    failed = {str(night): archive.failed.report(night) for night in archive.failed.dates()}
    reports |= {night: report for night, report in failed.items() if report is not None}
    nights = [reports[night] | {"is_out": date.fromisoformat(night) in current} for night in sorted(reports)]
    if json:
        echo_json(nights)
        return
    texts = shown_rows([night_row(night) for night in nights])
    rows = [["*" if night["is_out"] else "", *row] for night, row in zip(nights, texts, strict=True)]
    failures = {number for number, night in enumerate(nights) if night["failed"] is not None}
    echo(format_table(["", *NIGHT_COLUMNS], rows, range(2, 9), failures) if rows else "no nights")
    for night in nights:
        if night["failed"] is not None:
            echo(f"{night['run_date']} failed: {night['failed']}")
