"""Values of options not given on the command line: from the environment, then batchrec.toml, then the defaults."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from batchrec.cli.config_file import DEFAULT_FILE, FileOption, Kind, read_config_file
from batchrec.cli.options import ConfigOption
from batchrec.config.options import meaning_of
from batchrec.errors import ConfigError, nearest
from batchrec.system import logs

# Of the environment variables that set options.
PREFIX = "BATCHREC"
# Commands that people start by hand.
_NOT_IN_FILE = {"init", "models", "rollback"}
# Read by batchrec's own tests, and set where they run.
_OF_THE_TESTS = {"BATCHREC_DATA", "BATCHREC_FAULTS"}


def check_environment(group: click.Group, environment: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable with the prefix of options that names no option; an empty one counts as unset.

    group: the program.
    """
    known = set(_variables(group))
    for name in sorted(environment):
        if environment[name] and name.startswith(f"{PREFIX}_") and name not in known | _OF_THE_TESTS:
            near = nearest(name, known)
            meant = f"Did you mean {near}? " if near else ""
            raise ConfigError(
                f"environment variable {name}: names no option; expected one like {variable_of('score', 'top_k')}. "
                f"{meant}Rename it, or unset it"
            )


def variable_of(*names: str) -> str:
    """Return the environment variable of an option, by the names of its command and its own, as click makes it."""
    return "_".join([PREFIX, *names]).replace("-", "_").upper()


def _variables(command: click.Command, *names: str) -> Iterator[str]:
    """Yield the variables of a command's options, its subcommands' included; names: of the command."""
    for option in command.params:
        if isinstance(option, click.Option) and option.name:
            yield variable_of(*names, option.name)
    if isinstance(command, click.Group):
        for name, within in command.commands.items():
            yield from _variables(within, *names, name)


def read_defaults(group: click.Group, file: Path | None) -> dict[str, dict[str, Any]] | None:
    """Return click's default_map, read from `file`; without one from batchrec.toml, if that exists."""
    if file is None and not os.path.lexists(DEFAULT_FILE):
        return None
    options = {name: file_options(command) for name, command in in_file(group).items()}
    return read_config_file(file or Path(DEFAULT_FILE), options)


def in_file(group: click.Group) -> dict[str, click.Command]:
    """Return the commands that have a table in batchrec.toml."""
    return {name: command for name, command in group.commands.items() if name not in _NOT_IN_FILE}


def options_in_file(command: click.Command) -> list[click.Option]:
    """Return the options that a command's table may set: all but --config, because a file cannot name another one."""
    return [option for option in command.params if isinstance(option, click.Option) and option.name != "config"]


def file_options(command: click.Command) -> dict[str, FileOption]:
    """Return the options of a command's table: name with hyphens -> accepted values."""
    return {option.opts[0].removeprefix("--"): _file_option(option) for option in options_in_file(command)}


def _file_option(option: click.Option) -> FileOption:
    kinds: Mapping[str, Kind] = {"boolean": "true or false", "integer": "an integer", "float": "a number"}
    choices = tuple(option.type.choices) if isinstance(option.type, click.Choice) else ()
    takes_table = isinstance(option, ConfigOption) and option.takes_table
    kind, meaning = kinds.get(option.type.name, "text"), meaning_of(choices, option.help)
    return FileOption(str(option.name), kind, choices, option.multiple, takes_table, meaning)


def resolve_options(context: click.Context, command: str) -> dict[str, Any]:
    """Return another command's options as they are without a command line: parameter -> value.

    context: the context of the running command, or of the group. Raises ConfigError, and click's errors, for unusable
    values.
    """
    root = context.find_root()
    group = root.command
    if not isinstance(group, click.Group) or command not in group.commands:
        raise ConfigError(f"{command}: no such command")
    # The log format stays that of the running command.
    former = logs.log_format()
    try:
        with group.commands[command].make_context(command, [], parent=root) as own:
            return option_values(own)
    finally:
        logs.set_log_format(former)


def option_values(context: click.Context) -> dict[str, Any]:
    """Return a command's values. --ratings and --query exclude each other: the one of higher precedence is kept.

    Raises ConfigError if both are set in the same place.
    """
    values = dict(context.params)
    if not (values.get("ratings") and values.get("query")):
        return values
    sources = {name: context.get_parameter_source(name) for name in ("ratings", "query")}
    if sources["ratings"] == sources["query"]:
        raise ConfigError("--ratings and --query exclude each other: pass one of them")
    order = list(click.core.ParameterSource)
    weaker = max(sources, key=lambda name: order.index(sources[name] or order[-1]))
    values[weaker] = () if weaker == "ratings" else None
    return values
