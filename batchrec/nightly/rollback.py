"""Roll back: publish the tables of an earlier night again."""

import logging
from contextlib import ExitStack
from datetime import date

from batchrec.errors import ConfigError
from batchrec.nightly.archive import Archive
from batchrec.targets import check_tables

_log = logging.getLogger(__name__)


def roll_back(archive: Archive, to: date | None = None) -> date:
    """Switch the current tables to those of the night `to`, or of the night before the current one.

    Similar items are switched first, so that the same call, after it was killed in between, finds the same night.
    Returns the run date of that night. Raises ConfigError if there is no such night, if the current table belongs
    to no night, or if the table to go back to has changed or does not fit its target.
    """
    if to is not None and to not in archive.dates():
        raise ConfigError(f"{archive.folder}: night {to} does not exist")
    night = to or _night_before_current(archive)
    if not archive.is_intact(night):
        at, why = archive.table(night), "its SHA-256 has changed, or its report is lost"
        raise ConfigError(f"{at}: is not the table that was published: {why}")
    tables = archive.published_tables(night)
    check_tables(tables)
    later = {other: archive.recs_sha256(other) for other in archive.dates() if other > night}
    archive.decisions.roll_back({other: sha256 for other, sha256 in later.items() if sha256 is not None})
    with ExitStack() as switches:
        for target, table in tables:
            switches.enter_context(target.rolling_back(table))
        _log.info("rolling back to night %s", night)
    return night


def _night_before_current(archive: Archive) -> date:
    """Return the last night before the current one that has another table, and a report to check it by."""
    # If a run was killed while it published a night again, the current table may be that night's earlier one.
    current = archive.current_nights() or archive.decisions.dates()
    if not current:
        raise ConfigError(
            f"{archive.current}: is not the table of any night in {archive.folder}. Pass --to with a run date"
        )
    before = archive.dates_before(current[-1])
    earlier = [night for night in before if night not in current and archive.report(night) is not None]
    if not earlier:
        raise ConfigError(f"{archive.folder}: no earlier night has another table to roll back to")
    return earlier[-1]
