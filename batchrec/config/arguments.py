"""The arguments that Python hands to a job: one line for a data frame or a path in the wrong place."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from functools import wraps
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from batchrec.errors import ConfigError

Arguments = ParamSpec("Arguments")
Report = TypeVar("Report")


def checked(job: Callable[Arguments, Report]) -> Callable[Arguments, Report]:
    """Check the paths and configs that a job is given: those of parameters whose default is a path or a config.

    The job then also raises ConfigError for a path that is another thing, such as a data frame, and for another config.
    """
    parameters = inspect.signature(job)

    @wraps(job)
    def checked_job(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Report:
        try:
            given = parameters.bind(*args, **kwargs).arguments
        except TypeError:
            # Python's own words name the job.
            return job(*args, **kwargs)
        for name, value in given.items():
            check_argument(name, value, parameters.parameters[name].default)
        return job(*args, **kwargs)

    return checked_job


def as_sources(given: object, name: str) -> list[str]:
    """Return the paths and URLs that a job is given, one or many. Raises ConfigError for anything else."""
    is_one = isinstance(given, str) or _is_frame(given) or not isinstance(given, Iterable)
    sources: list[Any] = [given] if is_one else [*cast(Iterable[Any], given)]
    for source in sources:
        if not isinstance(source, str | PathLike):
            raise ConfigError(f"{name}: found {_kind(source)}; expected files, folders, globs or URLs{_advice(source)}")
    return list(map(fspath, sources))


def check_argument(name: str, given: object, default: object) -> None:
    """Raise ConfigError unless an argument is a path, or a config of the same class, as its default is."""
    if isinstance(default, Path) and not isinstance(given, str | PathLike):
        raise ConfigError(f"{name}: found {_kind(given)}; expected a path{_advice(given)}")
    if is_dataclass(default) and not isinstance(given, type(default)):
        expected = type(default).__name__
        raise ConfigError(f"{name}: found {_kind(given)}; expected a {expected}. Pass paths by name, like out=")


def _kind(given: object) -> str:
    name = type(given).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _advice(given: object) -> str:
    return ". Write it to a Parquet file and pass its path" if _is_frame(given) else ""


def _is_frame(given: object) -> bool:
    return hasattr(given, "columns")
