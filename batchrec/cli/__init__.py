"""The command line: options to a config, one job, one report. The options themselves stand in config/."""

from batchrec.cli import nightly
from batchrec.cli.commands import cli
from batchrec.cli.defaults import resolved
from batchrec.cli.running import main, run

__all__ = ["cli", "main", "nightly", "resolved", "run"]
