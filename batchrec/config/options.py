"""How a config declares an option with its help and its range, and checks its value."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import date
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any, Literal, get_args, get_origin, get_type_hints

from batchrec.errors import ConfigError

AGE = "days like 90d, weeks like 12w"
DATE = "a date like 2024-06-01"
_AGE = re.compile(r"([1-9]\d{0,3})([dw])")
# More than any log spans; larger numbers of days do not fit into seconds.
MAX_DAYS = 1_000_000
# The largest seed of numpy and torch.
MAX_SEED = 2**63 - 1
MAX_THREADS = 1024
# Of integers whose option has no maximum of its own: no count of a log is larger, and arrays may have such a length.
MAX_INTEGER = 2**31 - 1


class Exclusive(float):
    """A bound that is not itself within the range."""


@dataclass(frozen=True)
class Bounds:
    """The range of an option's values; None: no bound."""

    minimum: float | None = None
    maximum: float | None = None

    def __contains__(self, value: float) -> bool:
        """Return whether a finite number is within the range."""
        is_excluded = any(isinstance(bound, Exclusive) and value == bound for bound in (self.minimum, self.maximum))
        is_low = self.minimum is not None and value < self.minimum
        is_high = self.maximum is not None and value > self.maximum
        return not (is_excluded or is_low or is_high)

    def __str__(self) -> str:
        """Return the range in words, for error messages and batchrec.toml."""
        texts = []
        if self.minimum is not None:
            texts.append("more than {}" if isinstance(self.minimum, Exclusive) else "{} or more")
        if self.maximum is not None:
            texts.append("less than {}" if isinstance(self.maximum, Exclusive) else "{} or less")
        if texts == ["{} or more", "{} or less"]:
            texts = ["a number from {} to {}"]
        bounds = [_number(bound) for bound in (self.minimum, self.maximum) if bound is not None]
        return ", and ".join(texts).format(*bounds)

    @property
    def inequality(self) -> str:
        """The range in the form that click shows for its own types: x>=1, 0<=x<1; empty without a bound."""
        if self.maximum is None:
            return "" if self.minimum is None else f"x>{_sign(self.minimum)}{_number(self.minimum)}"
        left = "" if self.minimum is None else f"{_number(self.minimum)}<{_sign(self.minimum)}"
        return f"{left}x<{_sign(self.maximum)}{_number(self.maximum)}"


def _sign(bound: float) -> str:
    return "" if isinstance(bound, Exclusive) else "="


def _number(bound: float) -> str:
    return "2^63-1" if bound == MAX_SEED else f"{bound:.12g}"


def option(
    default: Any, text: str, *, minimum: float | None = None, maximum: float | None = None, takes_table: bool = False
) -> Any:
    """Declare a field with its default, the text of its command line help, and the range of its values.

    takes_table: whether batchrec.toml may spell its text name=number,name=number as a table.
    """
    metadata = {"help": text, "bounds": Bounds(minimum, maximum), "takes_table": takes_table}
    return field(default=default, metadata=metadata)


def check(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise ConfigError for the value of an option if a condition does not hold."""
    if not holds:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {expected}")


def check_values(config: Any) -> None:
    """Raise ConfigError for a value of another type than its option's, or out of its choices or its range.

    A path is kept as text, a list as a tuple, and a number as one of Python's.
    """
    hints = get_type_hints(type(config))
    for declared in fields(config):
        name, bounds = declared.name, declared.metadata["bounds"]
        value = _plain(getattr(config, name))
        object.__setattr__(config, name, value)
        expected = _described(hints[name]) + meaning_of(get_args(hints[name]), declared.metadata["help"])
        check(_fits(value, hints[name]), name, repr(value), expected)
        # No comparison holds for nan, and JSON knows neither nan nor infinity; an integer may be too large for a float.
        is_finite = not isinstance(value, int | float) or abs(value) <= sys.float_info.max
        check(is_finite, name, value, "a finite number")
        check(value is None or value in bounds, name, value, str(bounds))
        # An id may be an integer too, and may have more digits.
        is_limited = hints[name] in (int, int | None) and bounds.maximum is None
        check(not is_limited or value is None or value <= MAX_INTEGER, name, value, f"{MAX_INTEGER} or less")


def _plain(value: Any) -> Any:
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Real) and type(value) not in {bool, int, float}:
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of an option, or is one of its choices."""
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(part, get_args(hint)[0]) for part in value)
    if get_args(hint):
        return any(_fits(value, part) for part in get_args(hint))
    # A bool is an int to Python, and an int may be given for a float.
    kind = (int, float) if hint is float else hint
    return isinstance(value, kind) and (hint is bool or not isinstance(value, bool))


def _described(hint: Any) -> str:
    """Return the values that fit a type, for error messages."""
    if get_origin(hint) is Literal:
        *others, last = get_args(hint)
        return f"{', '.join(others)} or {last}"
    if get_origin(hint) is tuple:
        return "a list of texts"
    if get_args(hint):
        return " or ".join(_described(part) for part in get_args(hint))
    return {int: "an integer", float: "a number", bool: "True or False", str: "a text"}.get(hint, "None")


def meaning_of(choices: Iterable[object], text: str | None) -> str:
    """Return the help of an option as the end of an error message, if it says what its choices mean; else nothing."""
    return f". {text}".removesuffix(".") if text and any(f"{choice}: " in text for choice in choices) else ""


def parse_age(text: str) -> int | None:
    """Return the days of an age like 90d or 12w; None for all other texts."""
    match = _AGE.fullmatch(text)
    return None if match is None else int(match[1]) * (7 if match[2] == "w" else 1)


def parse_date(text: str) -> date | None:
    """Return the date that a text like 2026-11-24 names; None for all other texts."""
    try:
        parsed = date.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.isoformat() == text else None


def parse_dates(texts: Iterable[str]) -> list[date]:
    """Return the dates that texts like 2026-11-24 name, oldest first, without all other texts."""
    return sorted(parsed for parsed in map(parse_date, texts) if parsed is not None)
