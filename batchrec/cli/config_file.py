"""batchrec.toml: one table per command, with the options of its command line."""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Literal

from batchrec.errors import ConfigError, nearest

DEFAULT_FILE = "batchrec.toml"

Kind = Literal["true or false", "an integer", "a number", "text"]


@dataclass(frozen=True)
class FileOption:
    """The values that an option accepts, and the name of its parameter. takes_table: also a table of numbers.

    meaning: a sentence on its choices, if its help explains them.
    """

    parameter: str
    kind: Kind
    choices: tuple[str, ...] = ()
    is_list: bool = False
    takes_table: bool = False
    meaning: str = ""

    @property
    def expected(self) -> str:
        """The accepted values, for error messages."""
        if self.is_list:
            return f"{self.kind}, or a list of it"
        return f"one of {', '.join(self.choices)}{self.meaning}" if self.choices else self.kind


# Command -> option name with hyphens -> accepted values.
Options = Mapping[str, Mapping[str, FileOption]]


def read_config_file(path: Path, options: Options) -> dict[str, dict[str, Any]]:
    """Return the values of a file: command -> parameter -> value.

    Keys may have hyphens or underscores. A table within a command's table is part of the key: `[run.gate] min-ndcg` is
    `gate-min-ndcg` of run. Options set to empty text or an empty list are left out: they count as unset.
    Raises ConfigError for a file that cannot be read, an unknown table or key, and a wrong value.
    """
    values: dict[str, dict[str, Any]] = {}
    for command, key, value in _entries(path, options):
        option = options[command].get(_with_hyphens(key))
        if option is None:
            raise ConfigError(
                f"{path}: [{command}] has no option {key!r}; {_suggestion(_with_hyphens(key), options[command])}"
            )
        if option.parameter in values.setdefault(command, {}):
            raise ConfigError(f"{path}: [{command}] {key} is set twice. Remove one")
        values[command][option.parameter] = _value(value, option, f"{path}: [{command}] {key}")
    return {
        command: {name: value for name, value in of_command.items() if value not in ("", [])}
        for command, of_command in values.items()
    }


def _entries(path: Path, options: Options) -> Iterator[tuple[str, str, Any]]:
    """Yield command, key and value of each entry."""
    for name, table in _load(path).items():
        command = _with_hyphens(name)
        if command not in options:
            raise ConfigError(f"{path}: no command {name!r}; {_suggestion(command, options)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name}: found {_describe(table)}; expected a table [{command}] of its options")
        for key, value in _flatten(table, options[command]):
            # [train] every sets run's --train-every: next to the other options of training.
            is_every = (command, key) == ("train", "every") and "train-every" in options.get("run", {})
            yield ("run", "train-every", value) if is_every else (command, key, value)


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Pass another --config, or none") from error


def _flatten(table: dict[str, Any], options: Mapping[str, FileOption], start: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = f"{start}{name}"
        if isinstance(value, dict) and _with_hyphens(key) not in options:
            yield from _flatten(value, options, f"{key}-")
        else:
            yield key, value


def _with_hyphens(key: str) -> str:
    return key.replace("_", "-")


def _suggestion(name: str, names: Mapping[str, object]) -> str:
    near = nearest(name, names)
    meant = f"did you mean {near!r}? " if near else ""
    return f"{meant}expected one of {', '.join(sorted(names))}"


def _value(value: Any, option: FileOption, where: str) -> Any:
    """Return the value as the command line takes it. Raises ConfigError for a value of another kind."""
    if value == "" and isinstance(value, str):
        return value
    if option.is_list:
        return [_scalar(part, option, where) for part in (value if isinstance(value, list) else [value])]
    if option.takes_table and isinstance(value, dict):
        number = FileOption(option.parameter, "a number")
        return ",".join(f"{name}={_scalar(part, number, f'{where} {name}')}" for name, part in value.items())
    return _scalar(value, option, where)


def _scalar(value: Any, option: FileOption, where: str) -> Any:
    if isinstance(value, date | time) and option.kind == "text":
        value = value.isoformat()
    # In Python a bool is an int.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # It could not be converted to a float.
    is_number &= not isinstance(value, int) or abs(value) <= sys.float_info.max
    fits = {
        "true or false": isinstance(value, bool),
        "an integer": is_number and isinstance(value, int),
        "a number": is_number,
        # No path or URL has a zero byte.
        "text": (isinstance(value, str) and "\0" not in value)
        or (is_number and isinstance(value, int) and not option.choices),
    }[option.kind]
    if not fits or (option.choices and value not in option.choices):
        raise ConfigError(f"{where}: found {_describe(value)}; expected {option.expected}")
    return str(value) if option.kind == "text" else value


def _describe(value: object) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return f"{value!r}".lower() if isinstance(value, bool) else f"{value!r}"
