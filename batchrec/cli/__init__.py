"""The command line: options to a config, one job, one report. The options themselves stand in config/."""

from batchrec.cli import nightly
from batchrec.cli.commands import cli
from batchrec.cli.defaults import resolve_options
from batchrec.cli.main import main, run

__all__ = ["cli", "main", "nightly", "resolve_options", "run"]
