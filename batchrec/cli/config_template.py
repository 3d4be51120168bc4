"""The text of a batchrec.toml that says what could stand in it, made from the commands' options."""

import json
import textwrap
from collections.abc import Iterator

import click

from batchrec.cli.defaults import in_file

_START = """\
The options of batchrec's commands, a table each. The command line goes before the environment
(BATCHREC_SCORE_TOP_K for top-k of [score]), the environment before this file, this file before the defaults.
Each option stands here at its default: remove the # before it to change it. Empty text, or an empty list, is the same
as an option that is not given."""


def template(group: click.Group) -> str:
    """Write every option of every command as a comment, with its help above."""
    tables = ("\n".join(_table(name, command)) for name, command in in_file(group).items())
    return "\n\n".join(["\n".join(f"# {line}" for line in _START.splitlines()), *tables]) + "\n"


def _table(name: str, command: click.Command) -> Iterator[str]:
    yield f"[{name}]"
    yield from _comment(command.get_short_help_str(limit=200))
    for option in command.params:
        if isinstance(option, click.Option):
            yield ""
            yield from _comment(_help(option))
            yield f"#{option.opts[0].removeprefix('--')} = {_default(option)}"


def _help(option: click.Option) -> str:
    choices = f" One of {', '.join(option.type.choices)}." if isinstance(option.type, click.Choice) else ""
    return f"{option.help}{choices}"


def _default(option: click.Option) -> str:
    if option.multiple:
        return "[]"
    default = option.default
    # JSON's texts, numbers and booleans are TOML's too. Of no default click makes None or a mark of its own.
    is_value = isinstance(default, bool | int | float | str)
    return json.dumps(default if is_value else "", ensure_ascii=False)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ")
