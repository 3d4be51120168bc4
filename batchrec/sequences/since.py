"""--since: which files, and which rows of a table, it needs. Older rows are left out when they are loaded."""

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import TypeVar

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.sources import InputFile, Since, StoredObject, partitions_of

_log = logging.getLogger(__name__)

_File = TypeVar("_File", InputFile, StoredObject, InputFile | StoredObject)
_ISO = re.compile(r"\d{4}-\d\d-\d\d($|[T ])")


def first_moment(config: SequencesConfig) -> int | None:
    """Return the time at which --since begins, in microseconds UTC; None if it is not set."""
    begin = _begin(config)
    return None if begin is None else int(begin.timestamp()) * 1_000_000


def rows_of_tables(config: SequencesConfig) -> Since | None:
    """Return the bound by which a store may leave older rows out itself; None if --since is not set."""
    begin = _begin(config)
    return None if begin is None else Since(config.timestamp_column, begin)


def needed_files(files: Sequence[_File], config: SequencesConfig) -> list[_File]:
    """Return the files without those of partitions before --since, if the path holds the time: dt=2024-05-01.

    Raises InputError if no file is left.
    """
    begin = _begin(config)
    if begin is None:
        return list(files)
    times = [_time_of(str(file), config) for file in files]
    needed = [file for file, moment in zip(files, times, strict=True) if moment is None or moment >= begin]
    if files and not needed:
        newest = max(moment for moment in times if moment is not None)
        raise InputError(
            f"{files[0]}: all {len(files)} files are of {newest:%Y-%m-%d} or older, before --since {begin:%Y-%m-%d}"
        )
    if len(needed) < len(files):
        _log.info("%d files of partitions before %s are not read", len(files) - len(needed), begin.date())
    return needed


def _begin(config: SequencesConfig) -> datetime | None:
    day = config.since_day
    return None if day is None else datetime.combine(day, time(), UTC)


def _time_of(file: str, config: SequencesConfig) -> datetime | None:
    """Return the time in the path of a file; None if there is none, or it can be read only with the rows."""
    text = dict(partitions_of(file)).get(config.timestamp_column)
    try:
        if text is None:
            return None
        if config.timestamp_format is not None:
            moment = datetime.strptime(text, config.timestamp_format)
        elif _ISO.match(text):
            moment = datetime.fromisoformat(text)
        else:
            return None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
