"""Errors that are not bugs: one line each, with the place, what was found, what was expected and what to do."""

import difflib
from collections.abc import Iterable


def nearest(wanted: str, names: Iterable[str]) -> str | None:
    """Return the name that a person most likely meant by another one; None if none is near.

    Only letters and digits are compared, in any case.
    """
    by_letters = {letters_of(name): name for name in sorted(names, reverse=True)}
    near = difflib.get_close_matches(letters_of(wanted), by_letters, n=1, cutoff=0.7)
    return by_letters[near[0]] if near else None


def letters_of(name: str) -> str:
    """Return the letters and digits of a name, which are the same in any spelling of it."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def one_line(error: BaseException) -> str:
    """Return the message of a library's error as one line of at most 400 characters."""
    return " ".join(str(error).split())[:400]


class BatchrecError(Exception):
    """An error that the caller can act on. report: the report of the night so far, if a night was running."""

    exit_code = 1
    report: object = None


class ConfigError(BatchrecError):
    """An option, a query or an output path that cannot be used."""

    exit_code = 2

    @classmethod
    def of(cls, error: OSError, where: object) -> "ConfigError":
        """Return the error for a path that the system refuses; where: the path, if the error has none."""
        return cls(f"{error.filename or where}: cannot be used: {error.strerror or error}")


class RefusedError(ConfigError):
    """A target that refuses a table, by its columns, a constraint or a trigger: it would refuse it again."""


class InputError(BatchrecError):
    """Input that breaks its contract."""

    exit_code = 3


class ModelError(BatchrecError):
    """A model directory that is damaged, incomplete or of another version."""

    exit_code = 4


class DeviceError(BatchrecError):
    """The requested device is missing."""

    exit_code = 5


class GateError(BatchrecError):
    """A gate failed: nothing was published."""

    exit_code = 6


class LockedError(BatchrecError):
    """Another run is active."""

    exit_code = 7


class StoreError(BatchrecError):
    """A store outside this machine, such as a database or an object store, that cannot be reached, read or written."""

    exit_code = 8


class EngineError(BatchrecError):
    """The cluster of an engine cannot be reached, or fails."""

    exit_code = 8


class NothingToDo(BatchrecError):  # noqa: N818 - not an error
    """The requested work is already done."""

    exit_code = 99
