"""The archive: the table and the report of each published night, and which of them is the current table."""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.config import parse_date
from batchrec.errors import ConfigError
from batchrec.nightly.decision_files import REPORT, DecidedNight, Decisions
from batchrec.nightly.report import read_report, report_to_json
from batchrec.system.atomic import replacing
from batchrec.system.disk import file_sha256, make_folder, put_on_disk, remove
from batchrec.targets import PublishedTable, Target

_log = logging.getLogger(__name__)

RECS = "recs.parquet"
_GONE = "gone"


@dataclass(frozen=True)
class Archive:
    """The published nights in `folder`. The newest night's table is also the current table, which readers read.

    folder/run_date=2026-11-24/   a published night: recs.parquet, report.json, and the rows it rejected
    folder/.run_date=2026-11-24/  the work on a night that is not published yet
    folder/failed/2026-11-24.json the report of a night that failed
    """

    folder: Path
    current: Target

    @property
    def decisions(self) -> Decisions:
        """The decisions to publish nights, or to roll them back."""
        return Decisions(self.folder)

    def work(self, run_date: date) -> Path:
        """Return the folder for the work on a night."""
        return self.decisions.work(run_date)

    def dates(self) -> list[date]:
        """List the published nights, oldest first: folders that hold a table or a report, intact or not."""
        named = [
            parse_date(path.name.removeprefix("run_date="))
            for path in self.folder.glob("run_date=*")
            if (path / REPORT).exists() or (path / RECS).exists()
        ]
        return sorted(night for night in named if night is not None)

    def dates_before(self, run_date: date) -> list[date]:
        """List the published nights before a run date."""
        return [night for night in self.dates() if night < run_date]

    def reports(self, nights: Sequence[date]) -> list[dict[str, Any]]:
        """Read the reports of published nights. Lost or damaged reports are left out, with a warning."""
        reports = []
        for night in nights:
            report = self.report(night)
            if report is None:
                _log.warning("night %s: its report is lost or damaged, and is left out", night)
            else:
                reports.append(report)
        return reports

    def night(self, run_date: date) -> Path:
        """Return the folder of a published night."""
        return self.folder / f"run_date={run_date}"

    def table(self, run_date: date) -> Path:
        """Return the file of a published night's table."""
        return self.night(run_date) / RECS

    def report(self, run_date: date) -> dict[str, Any] | None:
        """Read the report of a published night; None if it is missing, damaged or another night's."""
        return read_report(self.night(run_date) / REPORT, run_date)

    def published(self, run_date: date) -> PublishedTable:
        """Return the table of a published night, whose report is intact, to publish it again."""
        report = self.report(run_date)
        if report is None:
            raise ConfigError(f"{self.night(run_date) / REPORT}: is lost or damaged")
        return published_table(self.table(run_date), report)

    def recs_sha256(self, run_date: date) -> str | None:
        """Return the SHA-256 that a night's table had when it was published; None if its report is lost."""
        report = self.report(run_date)
        return None if report is None else report["recs_sha256"]

    def is_intact(self, run_date: date) -> bool:
        """Return whether a night's table is still, byte for byte, the one that was published."""
        table = self.table(run_date)
        return table.is_file() and file_sha256(table) == self.recs_sha256(run_date)

    def last_intact(self, nights: Sequence[date]) -> Path | None:
        """Return the table of the last of some nights whose table is intact; None if there is none."""
        for night in reversed(nights):
            if self.is_intact(night):
                return self.table(night)
            _log.warning("%s: lost or damaged, and is left out", self.table(night))
        return None

    def is_newest(self, run_date: date) -> bool:
        """Return whether no later night is published."""
        return all(night <= run_date for night in self.dates())

    def switches_current(self, run_date: date) -> bool:
        """Return whether publishing a night changes the current table.

        It does if no later night is published, or if a dated target holds later nights, which readers continue to read.
        """
        if self.is_newest(run_date):
            return True
        # After a rollback the target holds no later nights, and this one would become what readers read.
        return self.current.is_dated and any(night >= run_date for night in self.current_nights())

    def current_nights(self) -> list[date]:
        """List the nights whose table equals the current table: several if a night changed nothing."""
        current = self.current.sha256()
        return [night for night in self.dates() if current is not None and self.recs_sha256(night) == current]

    def is_published(self, run_date: date, recs_sha256: str) -> bool:
        """Return whether a night is published with a table of these bytes, and readers need not be switched to it.

        They need not be if this table is current already, if a later night is published, or if this night was rolled
        back and an earlier night's table is current.
        """
        if run_date not in self.dates() or self.recs_sha256(run_date) != recs_sha256 or not self.is_intact(run_date):
            return False
        current = self.current_nights()
        is_rolled_back = bool(current) and self.decisions.is_rolled_back(run_date, recs_sha256)
        return run_date in current or is_rolled_back or not self.is_newest(run_date)

    def decided(self, run_date: date) -> DecidedNight | None:
        """Return what a night was about to be published with; None if the report or the table is not intact.

        A run that was killed may already have moved the table into the night's folder.
        """
        report = self.decisions.report(run_date)
        for table in (self.work(run_date) / RECS, self.table(run_date)):
            if report is not None and table.is_file() and file_sha256(table) == report["recs_sha256"]:
                return DecidedNight(report, table)
        return None

    def make_current(self, run_date: date) -> None:
        """Switch the current table to that of a published night."""
        with self.current.replacing(self.published(run_date)):
            _log.info("night %s was published but was not the current table; it is now", run_date)

    def roll_back(self, to: date | None = None) -> date:
        """Switch the current table to that of the night `to`, or of the night before the current one.

        Returns the run date of that night. Raises ConfigError if there is no such night, if the current table belongs
        to no night, or if the table to go back to has changed.
        """
        if to is not None and to not in self.dates():
            raise ConfigError(f"{self.folder}: night {to} does not exist")
        night = to or self._night_before_current()
        table = self.table(night)
        if not self.is_intact(night):
            raise ConfigError(
                f"{table}: is not the table that was published: its SHA-256 has changed, or its report is lost"
            )
        self.decisions.roll_back(self._later_tables(night))
        with self.current.rolling_back(self.published(night)):
            _log.info("rolling back to night %s", night)
        return night

    def _night_before_current(self) -> date:
        """Return the last night before the current one that has another table, and a report to check it by."""
        # If a run was killed while it published a night again, the current table may be that night's earlier one.
        current = self.current_nights() or self.decisions.dates()
        if not current:
            raise ConfigError(
                f"{self.current}: is not the table of any night in {self.folder}. Pass --to with a run date"
            )
        earlier = [
            night for night in self.dates_before(current[-1]) if night not in current and self.report(night) is not None
        ]
        if not earlier:
            raise ConfigError(f"{self.folder}: no earlier night exists to roll back to")
        return earlier[-1]

    def _later_tables(self, night: date) -> dict[date, str]:
        """Return the SHA-256 of the tables of later nights."""
        tables = {later: self.recs_sha256(later) for later in self.dates() if later > night}
        return {later: sha256 for later, sha256 in tables.items() if sha256 is not None}

    def write_failed_report(self, run_date: date, report: dict[str, Any]) -> None:
        """Write the report of a night that was not published."""
        file = self._failed(run_date)
        make_folder(file.parent)
        with replacing(file) as temporary:
            temporary.write_text(report_to_json(report), encoding="utf-8")

    def prune(self, keep: int, tonight: date) -> None:
        """Delete all nights except the newest `keep`, tonight and the current one, and failed reports before them."""
        for night in set(self.dates()[:-keep]) - {tonight, *self.current_nights()}:
            # Hidden by one rename, so that no reader finds half a night.
            folder = self.night(night)
            folder.rename(folder.with_name(f".{_GONE}.{folder.name}.{secrets.token_hex(4)}"))
        put_on_disk([self.folder])
        for gone in self.folder.glob(f".{_GONE}.*"):
            remove(gone)
        oldest = str(min(self.dates(), default=tonight))
        for file in self._failed(tonight).parent.glob("*.json"):
            if file.stem < oldest:
                file.unlink()

    def clean_up(self, run_date: date) -> None:
        """Remove what a published night no longer needs: its decision, its work, the report of an earlier failure."""
        # The decision first, and synced: if it came back, the next start would publish a night that was rolled back.
        self.decisions.remove(run_date)
        self._failed(run_date).unlink(missing_ok=True)
        remove(self.work(run_date))
        put_on_disk([self.folder])

    def discard_work_before(self, run_date: date) -> None:
        """Delete the work on earlier nights, which were not published."""
        for work in self.folder.glob(".run_date=*"):
            if work.name < self.work(run_date).name:
                remove(work)

    def _failed(self, run_date: date) -> Path:
        return self.folder / "failed" / f"{run_date}.json"


def published_table(recs: Path, report: dict[str, Any]) -> PublishedTable:
    """Return a table as a target takes it; report: of its night."""
    return PublishedTable(
        recs,
        date.fromisoformat(report["run_date"]),
        report["recs_sha256"],
        report["run_id"],
        report["stages"]["score"]["model_id"],
    )
