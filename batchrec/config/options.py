"""How a config declares an option, and checks its value."""

import math
from dataclasses import field
from datetime import date
from typing import Any

from batchrec.errors import ConfigError

DATE = "a date like 2024-06-01"


def option(default: Any, text: str) -> Any:
    """Declare a field with its default and the text of its command line help."""
    return field(default=default, metadata={"help": text})


def check(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise ConfigError for the value of an option where something does not hold."""
    if not holds:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {expected}")


def check_finite(config: object) -> None:
    """Raise ConfigError if an option is not a finite number: no comparison holds for nan, and JSON knows neither."""
    for name, value in vars(config).items():
        check(not isinstance(value, float) or math.isfinite(value), name, value, "a finite number")


def check_at_least(config: object, least: int, *names: str) -> None:
    """Raise ConfigError where an option that is given is less than `least`."""
    for name in names:
        value = getattr(config, name)
        check(value is None or value >= least, name, value, f"{least} or more")


def check_fraction(config: object, *names: str) -> None:
    """Raise ConfigError where an option that is given is no fraction below 1."""
    for name in names:
        value = getattr(config, name)
        check(value is None or 0 <= value < 1, name, value, "a number from 0 up to, but not, 1")


def parse_date(text: str) -> date | None:
    """Read a date like 2026-11-24; None for all else."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if found.isoformat() == text else None
