"""Whether the times of a log are all of one unit, and none of them a date in disguise."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from batchrec.config import TimestampUnit
from batchrec.tables.queries import select

# Kinds of times, as in sql/sequences/events.sql; those of numbers without their last digits are ROUNDED more.
TEXT, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS, SMALL = range(6)
_ROUNDED = 8
_UNITS: dict[int, TimestampUnit] = {SECONDS: "s", MILLISECONDS: "ms", MICROSECONDS: "us", NANOSECONDS: "ns"}
_US_PER_TICK = {SMALL: 10**6, SECONDS: 10**6, MILLISECONDS: 10**3, MICROSECONDS: 1}

# Dates written as one number: format, what such a number is taken for, the least and the greatest usual one.
_WRITTEN_DATES = (
    ("%Y%m%d", SMALL, 19000101, 21001231),
    ("%Y%m", SMALL, 190001, 210012),
    ("%Y", SMALL, 1900, 2100),
    # Of years whose numbers are ahead of now as seconds.
    ("%Y%m%d%H", SECONDS, 1980010100, 2100123123),
    ("%Y%m%d%H%M", MILLISECONDS, 190001010000, 210012312359),
    ("%Y%m%d%H%M%S", MILLISECONDS, 19000101000000, 21001231235959),
    ("%Y%m%d%H%M%S%g", MICROSECONDS, 19000101000000000, 21001231235959999),
)
# Of 100 ns since the year 1, for the years 1990 to 2060: as nanoseconds all of them are in 1989 to 1990.
_DOTNET_TICKS = (627 * 10**12, 650 * 10**12)
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
    """Sum up the rows of sql/sequences/load_checks.sql by kind of time, the oldest first."""
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


def problem_of(
    con: duckdb.DuckDBPyConnection, times: Sequence[TimesOfKind], is_query: bool
) -> tuple[list[int], str] | None:
    """Say why numeric times cannot be read without being told their unit or format, and of which kinds; None if not."""
    numbers = {found.kind: found for found in times if found.kind != TEXT}
    units = sorted(numbers.keys() & _UNITS.keys())
    n_events = sum(found.n_events for found in times)
    for found in numbers.values():
        written = _written_as(con, found) if found.n_events >= n_events / 2 else None
        if written is not None:
            advice = f"Pass --timestamp-format {written}, or --timestamp-unit s if they are seconds"
            return [found.kind], f"numbers look like dates. {advice}"
    if len(units) > 1:
        names = " and ".join(_UNITS[kind] for kind in units)
        return units, f"the numbers look like {names}. Pass the one unit of all of them as --timestamp-unit"
    small, nanoseconds = numbers.get(SMALL), numbers.get(NANOSECONDS)
    if small is not None and not is_query and small.n_events > n_events / 2:
        return [SMALL], (
            "as seconds these times are before March 1973. Pass --timestamp-unit days for days, excel for those of a "
            "spreadsheet, s if they are seconds or only their order counts, or --timestamp-format for written dates"
        )
    if nanoseconds is not None and _DOTNET_TICKS[0] <= nanoseconds.oldest <= nanoseconds.newest <= _DOTNET_TICKS[1]:
        advice = "Pass a query that turns them into times, or --timestamp-unit ns"
        return [NANOSECONDS], f"the numbers look like .NET ticks. {advice}"
    return None


def _written_as(con: duckdb.DuckDBPyConnection, found: TimesOfKind) -> str | None:
    """Return the format in which at least half of the numbers of a kind are dates, if there is one."""
    for written, kind, least, greatest in _WRITTEN_DATES:
        tick = _US_PER_TICK.get(kind, 1)
        if found.kind != kind or found.newest < least * tick or found.oldest > greatest * tick:
            continue
        counted = select(con, "sequences/numbers_as_dates", tick=tick, format=written, time_kind=kind).fetchall()
        if counted[0][0] >= found.n_events / 2:
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
