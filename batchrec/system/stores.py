"""Libraries of stores, such as Delta Lake or Postgres: a package that is missing, and their errors as ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from batchrec.errors import BatchrecError, ConfigError, StoreError, one_line

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def needs_extra(where: object, extra: str) -> Iterator[None]:
    """Raise ConfigError if the block imports a package that is not installed; extra: of batchrec, which installs it."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{where}: the package {error.name} is not installed. Install it with pip install 'batchrec[{extra}]'"
        ) from error


@contextmanager
def store_errors(where: object, doing: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raise StoreError for a library's error of one of these kinds; doing: "read", or "read or written"."""
    try:
        yield
    except BatchrecError:
        raise
    except kinds as error:
        raise store_error(where, doing, error) from error


def store_error(where: object, doing: str, error: Exception) -> StoreError:
    """Return the error for a store that fails, without the colours of a library's message."""
    return StoreError(f"{where}: cannot be {doing}: {_COLOUR.sub('', one_line(error))}")
