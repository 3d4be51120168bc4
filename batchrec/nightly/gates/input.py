"""The input gate: the histories are as large, as new and of the same types as on earlier nights."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from batchrec.config import RunConfig, end_of_day
from batchrec.errors import InputError
from batchrec.nightly.report import Check
from batchrec.sequences.build import SequencesReport
from batchrec.tables.queries import connect, literal, select

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HistoriesFigures:
    """Figures of the histories.

    newest: time (UTC) of the newest event up to the end of the run date; of a later event only if there is no other.
    new_id_types: number of id columns that had another type last night.
    """

    newest: datetime
    new_id_types: int


def measure_histories(sequences: Path, run_date: date, previous: Path | None) -> HistoriesFigures:
    """Measure the histories of a night. previous: an earlier recs table to compare the id types with, if any.

    Raises InputError if the year of the newest event is outside the calendar.
    """
    with connect(sequences.parent) as con:
        row = select(con, "nightly/newest_event", path=literal(sequences), until=end_of_day(run_date)).fetchall()[0]
        before, newest = row
    schema = pq.read_schema(sequences)
    types = {"user_id": schema.field("user_id").type, "item_id": schema.field("item_ids").type.value_type}
    earlier = None if previous is None else pq.read_schema(previous)
    return HistoriesFigures(
        newest=_as_time(newest if before is None else before, sequences),
        new_id_types=sum(earlier is not None and earlier.field(name).type != types[name] for name in types),
    )


def _as_time(moment: int, sequences: Path) -> datetime:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment)
    except OverflowError as error:
        raise InputError(
            f"{sequences}: the newest event is {moment} seconds after 1970; expected a time in the years 1 to 9999"
        ) from error


def input_checks(
    built: SequencesReport,
    figures: HistoriesFigures,
    earlier: Sequence[dict[str, Any]],
    config: RunConfig,
    run_date: date,
) -> list[Check]:
    """Check the histories. earlier: the stages of earlier nights' reports, oldest first."""
    checks = []
    for name in ("rows_read", "users", "items"):
        before = [stages["build-sequences"][name] for stages in earlier]
        if before:
            minimum = config.gate_min_input * median(before)
            checks.append(Check("input", name.replace("_", " "), getattr(built, name), minimum=minimum))
    if not config.gate_new_id_types:
        checks.append(Check("input", "id columns whose type has changed", figures.new_id_types, maximum=0))
    if earlier:
        _warn_of_twice_the_rows(built.rows_read, earlier[-1]["build-sequences"]["rows_read"])
    rejected = sum(built.rejected.values()) / built.rows_read
    checks.append(Check("input", "share of rejected rows", rejected, maximum=config.gate_max_rejected))
    age = (run_date - figures.newest.date()).days
    if config.gate_max_age_days is not None:
        checks.append(Check("input", "days since the newest event", age, minimum=0, maximum=config.gate_max_age_days))
    elif earlier:
        _warn_of_old_log(figures.newest, earlier[-1]["build-sequences"].get("newest_until_tonight"), age)
    return checks


def _warn_of_twice_the_rows(n_rows: int, last_night: int) -> None:
    """Log a warning if the log has grown by more than half since last night: no gate has an upper bound."""
    if n_rows > 1.5 * last_night:
        _log.warning(
            "%d rows are read, and %d were last night. If a part of the log was delivered twice, remove it, and run "
            "this night again",
            n_rows,
            last_night,
        )


def _warn_of_old_log(newest: datetime, last_night: str | None, age: int) -> None:
    """Log a warning if the log has not grown since last night. last_night: its newest event, if its report has it."""
    if last_night is None or newest.isoformat() > last_night:
        return
    than = "last night's" if newest.isoformat() == last_night else f"older than last night's of {last_night[:10]}"
    _log.warning("the newest event is %s, %s days old; set --gate-max-age-days to stop such a night", than, age)
