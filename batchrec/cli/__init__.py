"""The command line: options become a config, a job runs, its report is printed. config/ declares the options."""

from batchrec.cli import diff, explore, inspect, nightly, nights, report, tune
from batchrec.cli.commands import cli
from batchrec.cli.precedence import resolve_options
from batchrec.cli.running import main, run

__all__ = ["cli", "diff", "explore", "inspect", "main", "nightly", "nights", "report", "resolve_options", "run", "tune"]
