"""The text of a batchrec.toml with every option of every command, made from the commands' options."""

import json
import textwrap
from collections.abc import Iterator

import click

from batchrec.cli.options import ConfigOption
from batchrec.cli.precedence import in_file, options_in_file

_START = """\
The options of batchrec's commands, one table per command.
Precedence: command line, then environment (BATCHREC_SCORE_TOP_K for top-k of [score]), then this file, then default.
Each option is listed with its default. To change it, remove the # before it. Empty text or an empty list counts as
unset."""


def template(group: click.Group) -> str:
    """Return every option of every command as a comment, each below its help."""
    tables = ("\n".join(_table(name, command)) for name, command in in_file(group).items())
    return "\n\n".join(["\n".join(f"# {line}" for line in _START.splitlines()), *tables]) + "\n"


def _table(name: str, command: click.Command) -> Iterator[str]:
    yield f"[{name}]"
    yield from _comment(command.get_short_help_str(limit=200))
    for option in options_in_file(command):
        yield ""
        yield from _comment(_help(option))
        yield f"#{option.opts[0].removeprefix('--')} = {_default(option)}"


def _help(option: click.Option) -> str:
    choices = f" One of {', '.join(option.type.choices)}." if isinstance(option.type, click.Choice) else ""
    bounds = str(option.bounds) if isinstance(option, ConfigOption) else ""
    return f"{option.help}{choices}" + (f" Range: {bounds}." if bounds else "")


def _default(option: click.Option) -> str:
    if option.multiple:
        return "[]"
    default = option.default
    # Texts, numbers and booleans are the same in JSON and TOML. For no default click has None or a marker of its own.
    is_value = isinstance(default, bool | int | float | str)
    return json.dumps(default if is_value else "", ensure_ascii=False)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
