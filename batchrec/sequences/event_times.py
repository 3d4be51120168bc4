"""Check that the times of a log have one unit, and that numbers are not dates written as digits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from batchrec.config import TimestampUnit
from batchrec.tables.queries import select

# Kinds of times, as in sql/sequences/events.sql. _ROUNDED is added to the kind of a number without its last digits.
# ZERO is the same time in every unit.
TEXT, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS, SMALL, ZERO = range(7)
_ROUNDED = 8
_UNITS: dict[int, TimestampUnit] = {SECONDS: "s", MILLISECONDS: "ms", MICROSECONDS: "us", NANOSECONDS: "ns"}
_US_PER_TICK = {SMALL: 10**6, SECONDS: 10**6, MILLISECONDS: 10**3, MICROSECONDS: 1}

# Dates written as one number: format, kind that such a number is taken for, smallest and largest usual number.
_DATE_NUMBERS = (
    ("%Y%m%d", SMALL, 19000101, 21001231),
    ("%Y%m", SMALL, 190001, 210012),
    ("%Y", SMALL, 1900, 2100),
    # From 1980: as seconds these numbers are in the future.
    ("%Y%m%d%H", SECONDS, 1980010100, 2100123123),
    ("%Y%m%d%H%M", MILLISECONDS, 190001010000, 210012312359),
    ("%Y%m%d%H%M%S", MILLISECONDS, 19000101000000, 21001231235959),
    ("%y%m%d%H%M%S", MILLISECONDS, 100101000000, 991231235959),
    ("%Y%m%d%H%M%S%g", MICROSECONDS, 19000101000000000, 21001231235959999),
)
# Ticks of 100 ns for the years 1990 to 2060, read as nanoseconds: .NET counts since the year 1, and all are in 1989 or
# 1990; Windows counts since 1601, and all are in 1973 or 1974.
_TICKS = ((".NET", 627 * 10**12, 650 * 10**12), ("Windows", 1227 * 10**11, 1449 * 10**11))
# Directives of strptime that stand for letters, such as the name of a day.
_LETTERS = "aAbBpZ"
_SECOND = 10**6
_DAY = 86400 * _SECOND
_YEAR_1971 = 365 * _DAY


@dataclass(frozen=True)
class TimesOfKind:
    """The times of one kind: how many there are, and the oldest and newest as they were read, in microseconds UTC.

    n_rounded: how many are numbers without their last digits.
    """

    kind: int
    n_events: int
    oldest: int
    newest: int
    n_rounded: int = 0


def times_of(checks: Sequence[dict[str, Any]]) -> list[TimesOfKind]:
    """Return the rows of sql/sequences/load_checks.sql aggregated by kind of time, oldest first."""
    kinds: dict[int, TimesOfKind] = {}
    for row in checks:
        if row["time_kind"] is not None:
            is_rounded, kind = divmod(row["time_kind"], _ROUNDED)
            seen = kinds.get(kind, TimesOfKind(kind, 0, row["oldest"], row["newest"]))
            oldest, newest = min(seen.oldest, row["oldest"]), max(seen.newest, row["newest"])
            n_events, n_rounded = seen.n_events + row["n_events"], seen.n_rounded + is_rounded * row["n_events"]
            kinds[kind] = TimesOfKind(kind, n_events, oldest, newest, n_rounded)
    return sorted(kinds.values(), key=lambda times: times.oldest)


def unit_needed(times: Sequence[TimesOfKind]) -> TimestampUnit:
    """Return the common unit if numbers were read in two units because of their sizes, otherwise auto.

    Numbers that are too small to recognise their unit have the unit of the others.
    """
    kinds = {of_kind.kind for of_kind in times}
    units = [_UNITS[kind] for kind in sorted(kinds & _UNITS.keys())]
    return units[0] if SMALL in kinds and len(units) == 1 and units != ["s"] else "auto"


def problem_of(
    con: duckdb.DuckDBPyConnection, times: Sequence[TimesOfKind], is_query: bool
) -> tuple[list[int], str] | None:
    """Return the kinds of numeric times that need an explicit unit or format, and why; None if all can be read."""
    numbers = {of_kind.kind: of_kind for of_kind in times if of_kind.kind not in (TEXT, ZERO)}
    units = sorted(numbers.keys() & _UNITS.keys())
    n_events = sum(of_kind.n_events for of_kind in times if of_kind.kind != ZERO)
    for of_kind in numbers.values():
        date_format = _date_format(con, of_kind) if of_kind.n_events >= n_events / 2 else None
        if date_format is not None:
            advice = f"Pass --timestamp-format {date_format}, or --timestamp-unit s if they are seconds"
            return [of_kind.kind], f"numbers look like dates. {advice}"
    if len(units) > 1:
        names = " and ".join(_UNITS[kind] for kind in units)
        return units, f"the numbers look like {names}. Pass their common unit as --timestamp-unit"
    small, nanoseconds = numbers.get(SMALL), numbers.get(NANOSECONDS)
    if small is not None and not is_query and small.n_events > n_events / 2:
        return [SMALL], (
            "as seconds these times are before March 1973. Pass --timestamp-unit days for days, excel for times of a "
            "spreadsheet, s if they are seconds or only their order matters, --timestamp-format for dates, or a query "
            "that computes times"
        )
    for system, first, last in _TICKS:
        if nanoseconds is not None and first <= nanoseconds.oldest <= nanoseconds.newest <= last:
            advice = "Pass a query that converts them to times, or --timestamp-unit ns"
            return [NANOSECONDS], f"the numbers look like {system} ticks. {advice}"
    return None


def _date_format(con: duckdb.DuckDBPyConnection, times: TimesOfKind) -> str | None:
    """Return the format in which at least half of the numbers of a kind are dates; None if there is none."""
    for date_format, kind, lowest, highest in _DATE_NUMBERS:
        tick = _US_PER_TICK.get(kind, 1)
        if times.kind != kind or times.newest < lowest * tick or times.oldest > highest * tick:
            continue
        counted = select(con, "sequences/numbers_as_dates", tick=tick, format=date_format, time_kind=kind).fetchall()
        if counted[0][0] >= times.n_events / 2:
            return date_format
    return None


def warnings_of(times: Sequence[TimesOfKind], unit: str) -> list[tuple[str, int]]:
    """Return warnings about times that can be read but look wrong, each with the kind of time it is about."""
    if not times:
        return []
    oldest = min((of_kind.oldest for of_kind in times if of_kind.kind != ZERO), default=0)
    newest = max(of_kind.newest for of_kind in times)
    advice = "Check --timestamp-unit and --timestamp-format"
    if newest < _YEAR_1971:
        return [(f"all times are in 1970 or before. {advice}", times[0].kind)]
    if oldest > datetime.now(UTC).timestamp() * _SECOND + _DAY:
        return [(f"all times are in the future. {advice}", times[0].kind)]
    rounded = [
        (
            f"{of_kind.n_rounded} numbers of {of_kind.n_events} are written without their last digits, as spreadsheets "
            "save them: the order of their events may be lost. Export them as whole numbers",
            of_kind.kind + _ROUNDED,
        )
        for of_kind in times
        if of_kind.n_rounded
    ]
    zeros = [
        (f"{of_kind.n_events} time(s) are 0, read as 1970. If they are missing leave the rows out", ZERO)
        for of_kind in times
        if of_kind.kind == ZERO and unit == "auto"
    ]
    small = [
        (f"{of_kind.n_events} numbers are too small to be dates after March 1973. {advice}", of_kind.kind)
        for of_kind in times
        if of_kind.kind == SMALL and unit == "auto"
    ]
    return [*rounded, *zeros, *small]


def start_of_times(time_format: str | None) -> str:
    """Return a regular expression that the start of each time matches, up to its first digit.

    time_format: None for numbers and ISO 8601; otherwise times may begin with letters, as in Wed Nov 15 2023.
    """
    digit = r"[-+]?\d"
    start = ""
    for directive, literal in re.findall(r"(?s)%-?(.)|(.)", time_format or ""):
        if directive and directive not in _LETTERS:
            break
        start += r"[^\W\d]+" if directive else r"\s*" if literal.isspace() else re.escape(literal)
    return start + digit
