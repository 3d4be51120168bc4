"""The arguments that Python hands to a job: one line for a data frame or a path in the wrong place."""

from collections.abc import Iterable
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from batchrec.errors import ConfigError


def as_path(given: object, name: str) -> Path:
    """Return the path that a job is given; name: of the argument. Raises ConfigError for anything but a path."""
    if isinstance(given, str | PathLike):
        return Path(given)
    raise ConfigError(f"{name}: found {_kind(given)}; expected a path{_advice(given)}")


def check_config(given: object, expected: type) -> None:
    """Raise ConfigError for a config of another class than a job's, such as a path in its place."""
    if not isinstance(given, expected):
        raise ConfigError(
            f"found {_kind(given)} {given!r:.60}; expected a {expected.__name__}. Pass paths by name, as out="
        )


def as_sources(given: object, name: str) -> list[str]:
    """Return the paths and URLs that a job is given, one or many. Raises ConfigError for anything else."""
    is_one = isinstance(given, str) or _is_frame(given) or not isinstance(given, Iterable)
    sources: list[Any] = [given] if is_one else [*cast(Iterable[Any], given)]
    for source in sources:
        if not isinstance(source, str | PathLike):
            raise ConfigError(f"{name}: found {_kind(source)}; expected files, folders, globs or URLs{_advice(source)}")
    return list(map(fspath, sources))


def _kind(given: object) -> str:
    name = type(given).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _advice(given: object) -> str:
    return ". Write it to a Parquet file and pass its path" if _is_frame(given) else ""


def _is_frame(given: object) -> bool:
    return hasattr(given, "columns")
