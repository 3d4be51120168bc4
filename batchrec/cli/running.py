"""The batchrec program: run a command, and turn every error except a bug into one line and an exit code."""

import logging
import sys
import traceback
from collections.abc import Sequence

import click

from batchrec.cli.commands import cli
from batchrec.cli.torchrun import is_first_process
from batchrec.errors import BatchrecError, ConfigError, NothingToDo
from batchrec.system import logs
from batchrec.system.signals import Terminated, ignore_signals, signals_first, stopped_by_signals
from batchrec.system.terminal import on_one_line, shows_colours

_log = logging.getLogger("batchrec")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; an error that is not a bug is one line on stderr."""
    with logs.logging_to_stderr(logging.INFO if is_first_process() else logging.WARNING), stopped_by_signals():
        try:
            with signals_first():
                return int(cli.main(arguments, prog_name="batchrec", standalone_mode=False) or 0)
        except BaseException as error:
            return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    """Write the error that ended a command, and return its exit code. Re-raises bugs unless logs are JSON."""
    if isinstance(error, Terminated):
        return _write_line(error.message, int(str(error.code)))
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return _write_error("interrupted", 130)
    if isinstance(error, OSError) and error.filename is not None:
        error = ConfigError.of(error, error.filename)
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        # As Python holds the other bytes of a path. DuckDB and Arrow take paths in UTF-8.
        error = ConfigError(f"{error.object!r}: the path has bytes that are not UTF-8. Rename the file or folder")
    if isinstance(error, BatchrecError):
        level = logging.INFO if isinstance(error, NothingToDo) else logging.ERROR
        return _write_error(str(error), error.exit_code, level)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return ConfigError.exit_code
    if isinstance(error, click.ClickException):
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "batchrec"
        message = error.format_message()
        stop = "" if message.endswith((".", "?")) else "."
        return _write_error(f"{message}{stop} See {command} --help", ConfigError.exit_code)
    if logs.is_json() and isinstance(error, Exception):
        _log.error("a bug: %s", error, exc_info=error, extra={"exit_code": 1})
        return 1
    raise error


def _write_error(message: str, exit_code: int, level: int = logging.ERROR) -> int:
    is_plain = logs.is_json() or level < logging.ERROR
    return _write_line(message if is_plain else f"error: {message}", exit_code, level)


def _write_line(message: str, exit_code: int, level: int = logging.ERROR) -> int:
    # Names of files and columns may hold control characters: keep the message on one line, and the terminal safe.
    line = logs.redacted(on_one_line(" ".join(message.split())))
    if logs.is_json():
        _log.log(level, "%s", line, extra={"exit_code": exit_code})
    else:
        if line.startswith("error: ") and shows_colours(sys.stderr):
            line = click.style("error:", fg="red", bold=True) + line.removeprefix("error:")
        click.echo(f"batchrec: {line}", err=True)
    return exit_code


def main() -> None:
    """Entry point of the `batchrec` command."""
    try:
        # Signals end a command while it runs, and are ignored again after it: then they must not change its exit code.
        ignore_signals()
        sys.exit(run())
    except Exception:
        click.echo(logs.redacted(traceback.format_exc()), err=True, nl=False)
        sys.exit(1)
