"""The run date of a job: today's date in UTC, unless an option names another."""

from calendar import timegm
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from batchrec.config.options import DATE, check, parse_date


class RunDate:
    """The part of a config that has a `run_date`."""

    run_date: str | None

    @cached_property
    def night(self) -> date:
        """The run date as a date; it stays the same if the job is still running at midnight."""
        return datetime.now(UTC).date() if self.run_date is None else date.fromisoformat(self.run_date)

    def check_run_date(self) -> None:
        """Raise ConfigError unless the run date is a date after 1970, so that it has a time and earlier days."""
        day = None if self.run_date is None else parse_date(self.run_date)
        is_usable = day is not None and day.year > 1970
        check(self.run_date is None or is_usable, "run_date", self.run_date, f"{DATE}, after 1970")


def latest_run_date() -> date:
    """Return the latest date that a night can have: east of Greenwich it may be tomorrow already."""
    return datetime.now(UTC).date() + timedelta(days=1)


def end_of_day(day: date) -> int:
    """Return the time at which a day ends, in seconds since 1970 UTC."""
    return timegm((day + timedelta(days=1)).timetuple())
