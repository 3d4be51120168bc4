"""The command diff."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from batchrec.cli.commands import cli
from batchrec.cli.nightly import catalogue_of, open_archive
from batchrec.cli.options import JobCommand, json_option, log_format_option, options_of
from batchrec.cli.output import echo, print_figures, print_report
from batchrec.config import DiffConfig
from batchrec.system.terminal import format_table

if TYPE_CHECKING:
    from batchrec.nightly.diff import Compared, DiffReport


@cli.command("diff", cls=JobCommand)
@click.argument("nights", nargs=-1, metavar="[NIGHT NIGHT]")
@options_of(DiffConfig)
@log_format_option
@json_option
@click.pass_context
def diff_command(context: click.Context, /, nights: tuple[str, ...], json: bool, **options: Any) -> None:
    """Show what changed from one night's table to another's: users, items, the lists that moved most, figures.

    NIGHT: the run date of a published night, the folder of a night, or a table of recommendations with user_id, item_id
    and rank. The earlier one comes first. Default: the last two published nights.
    """
    config = DiffConfig(**options)
    from batchrec.nightly.diff import diff

    report = diff(nights, open_archive(context), config, catalogue_of(context))
    if json:
        print_report(report, json)
        return
    _print_changes(report)
    for head, compared in (("source", report.sources), ("figure", report.figures)):
        if compared:
            echo(f"\n{_side_by_side(head, report, compared)}")


def _print_changes(report: "DiffReport") -> None:
    from batchrec.report_page.titles import Titles

    changes = asdict(report.changes)
    del changes["moved"]
    changes["share of lists changed"] = report.changed_share
    print_figures({"before": report.before, "after": report.after, **changes})
    titles = Titles(report.titles)
    rows = [
        [str(moved.user_id), f"{moved.n_kept} of {moved.n_tonight}", titles.names(moved.came), titles.names(moved.gone)]
        for moved in report.changes.moved
    ]
    if rows:
        echo(f"\n{format_table(['user', 'kept', 'came', 'gone'], rows, [1])}")


def _side_by_side(head: str, report: "DiffReport", compared: "list[Compared]") -> str:
    from batchrec.report_page.cells import shown

    rows = [[row.name, shown(row.before), shown(row.after)] for row in compared]
    return format_table([head, report.before, report.after], rows, [1, 2])
