"""Whether the times of a log are all of one unit, and none of them a date in disguise."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from batchrec.config import TimestampUnit
from batchrec.queries import select

# Kinds of times, as in sql/events.sql; those of numbers without their last digits are ROUNDED more.
TEXT, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS, SMALL = range(6)
_ROUNDED = 8
_UNITS: dict[int, TimestampUnit] = {SECONDS: "s", MILLISECONDS: "ms", MICROSECONDS: "us", NANOSECONDS: "ns"}
_US_PER_TICK = {SMALL: 10**6, SECONDS: 10**6, MILLISECONDS: 10**3}

# Dates written as one number: format, what such a number is taken for, the least and the greatest of them.
_WRITTEN_DATES = (
    ("%Y%m%d", SMALL, 19000101, 21001231),
    ("%Y%m", SMALL, 190001, 210012),
    ("%Y", SMALL, 1900, 2100),
    # Of years whose numbers lie ahead of now as seconds.
    ("%Y%m%d%H", SECONDS, 1980010100, 2100123123),
    ("%Y%m%d%H%M", MILLISECONDS, 190001010000, 210012312359),
    ("%Y%m%d%H%M%S", MILLISECONDS, 19000101000000, 21001231235959),
)
_SECOND = 10**6
_DAY = 86400 * _SECOND
_YEAR_1971 = 365 * _DAY


@dataclass(frozen=True)
class TimesOfKind:
    """The times of one kind: how many, and the least and the greatest in microseconds UTC as they were read.

    n_rounded: how many of them are numbers that lack their last digits.
    """

    kind: int
    n_events: int
    oldest: int
    newest: int
    n_rounded: int = 0


def times_of(checks: Sequence[dict[str, Any]]) -> list[TimesOfKind]:
    """Sum up the rows of sql/load_checks.sql by kind of time, the oldest first."""
    kinds: dict[int, TimesOfKind] = {}
    for row in checks:
        if row["time_kind"] is not None:
            is_rounded, kind = divmod(row["time_kind"], _ROUNDED)
            seen = kinds.get(kind, TimesOfKind(kind, 0, row["oldest"], row["newest"]))
            oldest, newest = min(seen.oldest, row["oldest"]), max(seen.newest, row["newest"])
            n_events, n_rounded = seen.n_events + row["n_events"], seen.n_rounded + is_rounded * row["n_events"]
            kinds[kind] = TimesOfKind(kind, n_events, oldest, newest, n_rounded)
    return sorted(kinds.values(), key=lambda found: found.oldest)


def unit_needed(times: Sequence[TimesOfKind]) -> TimestampUnit:
    """Return the one unit of all numbers if times were read in two for their size, else auto.

    Numbers too small to tell a unit by are of the unit of the others.
    """
    kinds = {found.kind for found in times}
    units = [_UNITS[kind] for kind in sorted(kinds & _UNITS.keys())]
    return units[0] if SMALL in kinds and len(units) == 1 and units != ["s"] else "auto"


def problem_of(con: duckdb.DuckDBPyConnection, times: Sequence[TimesOfKind], is_query: bool) -> str | None:
    """Say why numeric times cannot be read without being told their unit or format; None if they can."""
    by_kind = {found.kind: found for found in times}
    units = sorted(by_kind.keys() & _UNITS.keys())
    if len(units) > 1:
        names = " and ".join(_UNITS[kind] for kind in units)
        return f"the numbers of this column are of several sizes, as in {names}. Pass --timestamp-unit, of all of them"
    if len(by_kind) != 1:
        return None
    (found,) = by_kind.values()
    written = _written_as(con, found)
    if written is not None:
        return (
            f"the numbers look like dates. Pass --timestamp-format {written}, or --timestamp-unit s if they are seconds"
        )
    if found.kind == SMALL and not is_query:
        return (
            "as seconds all times are before March 1973. Pass --timestamp-unit days for days, excel for those of a "
            "spreadsheet, s if they are seconds or only their order counts, or --timestamp-format for written dates"
        )
    return None


def _written_as(con: duckdb.DuckDBPyConnection, found: TimesOfKind) -> str | None:
    for written, kind, least, greatest in _WRITTEN_DATES:
        tick = _US_PER_TICK[kind]
        fits = found.kind == kind and least * tick <= found.oldest and found.newest <= greatest * tick
        if fits and select(con, "numbers_not_dates", tick=tick, format=written).fetchall()[0][0] == 0:
            return written
    return None


def warnings_of(times: Sequence[TimesOfKind], unit: str) -> list[tuple[str, int]]:
    """Say what is odd about the times of a log that are in the right order, each with the kind of time it is about."""
    if not times:
        return []
    oldest, newest = times[0].oldest, max(kind.newest for kind in times)
    advice = "Check --timestamp-unit and --timestamp-format"
    if newest < _YEAR_1971:
        return [(f"all times are in 1970 or before. {advice}", times[0].kind)]
    if oldest > datetime.now(UTC).timestamp() * _SECOND + _DAY:
        return [(f"all times are in the future. {advice}", times[0].kind)]
    rounded = [
        (
            f"{found.n_rounded} numbers of {found.n_events} are written without their last digits, as spreadsheets "
            "save them: the order of their events may be lost. Export them as whole numbers",
            found.kind + _ROUNDED,
        )
        for found in times
        if found.n_rounded
    ]
    return rounded + [
        (f"{found.n_events} numbers are too small to be dates after March 1973. {advice}", found.kind)
        for found in times
        if found.kind == SMALL and unit == "auto"
    ]
