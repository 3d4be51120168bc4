"""How the commands' options are declared: from the fields of configs, and those that several commands share."""

from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from batchrec.system import logs

Command = TypeVar("Command", bound=Callable[..., Any])


def options_of(config_class: type) -> Callable[[Command], Command]:
    """Give a command an option for every field of a config, with the field's name, type, default and help."""
    hints = get_type_hints(config_class)

    def decorate(command: Command) -> Command:
        for field in reversed(fields(config_class)):
            option_type = _option_type(hints[field.name])
            command = click.option(
                f"--{field.name.replace('_', '-')}",
                type=option_type,
                is_flag=option_type is bool,
                default=field.default,
                show_default=field.default is not None and option_type is not bool,
                help=field.metadata["help"],
            )(command)
        return command

    return decorate


def _option_type(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    # A field that may be None is an option that may be left out.
    return next((part for part in get_args(hint) if part is not type(None)), hint)


def path_option(name: str, default: str, text: str) -> Callable[[Command], Command]:
    """Give a command an option that is a path."""
    return click.option(name, type=click.Path(path_type=Path), default=default, show_default=True, help=text)


json_option = click.option("--json", is_flag=True, default=False, help="Print the report as one line of JSON.")


def _use_log_format(_context: click.Context, _option: click.Parameter, value: logs.LogFormat) -> None:
    logs.set_log_format(value)


# Eager: what is wrong with another option is said in this format too.
log_format_option = click.option(
    "--log-format",
    type=click.Choice(get_args(logs.LogFormat)),
    default="text",
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_use_log_format,
    help="Log lines and errors on stderr: text, or a JSON object each.",
)


class JobCommand(click.Command):
    """A command with --log-format, which also holds where its command line cannot be parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, but set the log format before what is wrong is said."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError:
            option = next(option for option in self.params if option.name == "log_format")
            value = last_value(option.opts[0], given)
            wanted, _ = option.consume_value(ctx, {} if value is None else {"log_format": value})
            logs.set_log_format("json" if wanted == "json" else "text")
            raise


def last_value(name: str, arguments: list[str]) -> str | None:
    """Find the value that arguments give an option, whatever stands around it; None if they give none."""
    pairs = [following for argument, following in pairwise(arguments) if argument == name]
    pairs += [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{name}=")]
    return pairs[-1] if pairs else None
