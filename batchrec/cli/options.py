"""The options of commands: made from the fields of configs, or shared by several commands."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import click
from click.shell_completion import CompletionItem

from batchrec.cli.examples import EXAMPLES
from batchrec.config.options import Bounds, meaning_of, parse_date
from batchrec.errors import nearest
from batchrec.system import logs

SEE_EXIT_CODES = "Exit codes: see batchrec --help."

Config = TypeVar("Config")
Function = TypeVar("Function", bound=Callable[..., Any])


class ConfigOption(click.Option):
    """An option made from the field of a config: the help shows its range, the config checks it."""

    def __init__(self, *args: Any, bounds: Bounds, takes_table: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bounds, self.takes_table = bounds, takes_table

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Return what click puts in brackets behind the help, with the range."""
        extra = super().get_help_extra(ctx)
        if self.bounds.inequality:
            extra["range"] = self.bounds.inequality
        return extra


class Text(click.types.StringParamType):
    """The type of an option that is a text: most name files, which the shell then completes."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave the completion to the shell."""
        return [CompletionItem(incomplete, type="file")]


class Choice(click.Choice[str]):
    """The type of an option with some choices: the error for any other value names the nearest and what they mean."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the choice."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = nearest(str(value), self.choices)
            meant = f" Did you mean {near!r}?" if near else ""
            meaning = meaning_of(self.choices, getattr(param, "help", None)).removeprefix(".")
            self.fail(f"{error.message}{meant}{meaning}{'.' * bool(meaning)}", param, ctx)


class Date(click.ParamType[date]):
    """The type of an option that is a date."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the date that a text like 2026-11-24 names."""
        parsed = value if isinstance(value, date) else parse_date(value)
        if parsed is None:
            self.fail(f"{value!r} is not a date; expected one like 2026-11-24", param, ctx)
        return parsed


def options_of(config_class: type) -> Callable[[Function], Function]:
    """Add an option for every field of a config, with the field's name, type, default, help and range."""
    hints = get_type_hints(config_class)

    def decorate(command: Function) -> Function:
        for field in reversed(fields(config_class)):
            option_type = _option_type(hints[field.name])
            is_list = get_origin(hints[field.name]) is tuple
            name = field.name.replace("_", "-")
            command = click.option(
                f"--{name}/--no-{name}" if field.default is True else f"--{name}",
                cls=ConfigOption,
                bounds=field.metadata["bounds"],
                takes_table=field.metadata["takes_table"],
                type=option_type,
                is_flag=option_type is bool,
                multiple=is_list,
                default=field.default,
                show_default=field.default is not None and option_type is not bool and not is_list,
                help=field.metadata["help"],
            )(command)
        return command

    return decorate


def config_of(config_class: type[Config], options: Mapping[str, Any]) -> Config:
    """Return a config with the values of its options; `options` may hold others too."""
    return config_class(**{field.name: options[field.name] for field in fields(cast(Any, config_class))})


def _option_type(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return Choice(get_args(hint))
    # A field that may be None is an option that may be left out.
    kind = next((part for part in get_args(hint) if part is not type(None)), hint)
    return Text() if kind is str else kind


def path_option(name: str, default: str, text: str) -> Callable[[Function], Function]:
    """Add an option whose value is a path."""
    return click.option(name, type=click.Path(path_type=Path), default=default, show_default=True, help=text)


def target_option(default: str, text: str) -> Callable[[Function], Function]:
    """Add the option --out of a command that publishes a table."""
    return click.option("--out", type=Text(), default=default, show_default=True, metavar="TARGET", help=text)


json_option = click.option("--json", is_flag=True, default=False, help="Print the report as one line of JSON.")


def _use_log_format(_context: click.Context, _option: click.Parameter, value: logs.LogFormat) -> None:
    logs.set_log_format(value)


# Eager: errors in other options are written in this format too.
log_format_option = click.option(
    "--log-format",
    type=Choice(get_args(logs.LogFormat)),
    default="text",
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_use_log_format,
    help="Format of log lines and errors on stderr: text, or one JSON object per line.",
)


class _WithExamples(click.Command):
    """A command or group whose help ends with its examples and the exit codes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **({"epilog": SEE_EXIT_CODES} | kwargs))
        # Of each command itself: it keeps its option of help even if it is first parsed without its group.
        self.context_settings = {"help_option_names": ["-h", "--help"], **self.context_settings}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the exit codes."""
        name = ctx.command_path.removeprefix(ctx.find_root().command_path).strip()
        with formatter.section("Examples"):
            # As they are: a line that is wrapped could not be copied.
            formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in EXAMPLES[name]))
        super().format_epilog(ctx, formatter)


class Command(_WithExamples):
    """A command that takes its values by options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; if there are too many arguments, say how values are passed."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            named = [option.opts[0] for option in self.params if getattr(option, "is_flag", True) is False]
            takes_options_only = named and all(isinstance(option, click.Option) for option in self.params)
            if error.message.startswith("Got unexpected extra argument") and takes_options_only:
                text = f"{error.message}: pass every value with its option, as in {named[0]} VALUE."
                raise click.UsageError(text, ctx) from error
            raise


class Group(_WithExamples, click.Group):
    """A group of such commands."""

    command_class = Command


class JobCommand(Command):
    """A command with --log-format, which also applies to errors of its command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, but set the log format before an error is written."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError:
            self.set_log_format(ctx, given)
            raise

    def set_log_format(self, ctx: click.Context, args: list[str]) -> None:
        """Set the log format that a command line with errors asks for."""
        option = next(option for option in self.params if option.name == "log_format")
        value = last_value(option.opts[0], args)
        wanted, _ = option.consume_value(ctx, {} if value is None else {"log_format": value})
        logs.set_log_format("json" if wanted == "json" else "text")


def last_value(name: str, arguments: list[str]) -> str | None:
    """Return the last value of an option in arguments that may hold errors; None if it has none."""
    pairs = [following for argument, following in pairwise(arguments) if argument == name]
    pairs += [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{name}=")]
    return pairs[-1] if pairs else None
