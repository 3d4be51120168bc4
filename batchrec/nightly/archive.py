"""The archive: the table and the report of each published night, and which of them is the current table."""

import logging
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.config import parse_dates
from batchrec.errors import ConfigError
from batchrec.nightly.decisions import REPORT, DecidedNight, Decisions
from batchrec.nightly.failed_nights import FailedNights
from batchrec.nightly.report import read_report
from batchrec.system.disk import is_intact, put_on_disk, remove
from batchrec.targets import PublishedTable, Target

_log = logging.getLogger(__name__)

RECS = "recs.parquet"
SIMILAR = "similar.parquet"
HISTORIES = "sequences.parquet"
PAGE = "report.html"
_GONE = "gone"


@dataclass(frozen=True)
class Archive:
    """The published nights in `folder`. The newest night's table is also the current table, which readers read.

    folder/run_date=2026-11-24/   a published night: recs.parquet, similar.parquet if --similar asks for it,
                                  report.json, report.html, the rows it rejected, and of the newest night the histories
    folder/.run_date=2026-11-24/  the work on a night that is not published yet
    folder/failed/2026-11-24.json the report of a night that failed, and .html

    similar: where similar items are published; None if no night makes any.
    """

    folder: Path
    current: Target
    similar: Target | None = None

    @property
    def targets(self) -> list[Target]:
        """The targets of a night's tables: of recommendations, then of similar items."""
        return [self.current, *([] if self.similar is None else [self.similar])]

    @property
    def decisions(self) -> Decisions:
        """The decisions to publish nights, or to roll them back."""
        return Decisions(self.folder)

    @property
    def failed(self) -> FailedNights:
        """The nights that failed and were not published since."""
        return FailedNights(self.folder / "failed")

    def work(self, run_date: date) -> Path:
        """Return the folder for the work on a night."""
        return self.decisions.work(run_date)

    def dates(self) -> list[date]:
        """List the published nights, oldest first."""
        return published_nights(self.folder)

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

    def tables(self, report: dict[str, Any], recs: Path, similar: Path | None) -> list[tuple[Target, PublishedTable]]:
        """Return the tables of a night with their targets, recommendations first; report: of the night.

        similar: None if the night has no similar items to publish.
        """
        sha256 = similar_sha256(report)
        tables = [(self.current, _published_table(recs, report["recs_sha256"], report))]
        if self.similar is not None and similar is not None and sha256 is not None:
            tables.append((self.similar, _published_table(similar, sha256, report)))
        return tables

    def published_tables(self, run_date: date) -> list[tuple[Target, PublishedTable]]:
        """Return the tables of a published night, whose report is intact, to publish them again."""
        report = self.report(run_date)
        if report is None:
            raise ConfigError(f"{self.night(run_date) / REPORT}: is lost or damaged")
        similar = self._file_of([self.night(run_date)], SIMILAR, similar_sha256(report))
        if self.similar is not None and similar is None:
            _log.warning("%s stays as it is: night %s has no intact table for it", self.similar, run_date)
        return self.tables(report, self.table(run_date), similar)

    @staticmethod
    def _file_of(folders: Sequence[Path], name: str, sha256: str | None) -> Path | None:
        """Return the first file of a name with these bytes in some folders; None without any."""
        files = (folder / name for folder in folders)
        return next((file for file in files if is_intact(file, sha256)), None)

    def recs_sha256(self, run_date: date) -> str | None:
        """Return the SHA-256 that a night's table had when it was published; None if its report is lost."""
        report = self.report(run_date)
        return None if report is None else report["recs_sha256"]

    def is_intact(self, run_date: date) -> bool:
        """Return whether a night's table is still, byte for byte, the one that was published."""
        return is_intact(self.table(run_date), self.recs_sha256(run_date))

    def is_complete(self, run_date: date) -> bool:
        """Return whether each table of a night that has a target is still the one that was published."""
        sha256 = None if self.similar is None else similar_sha256(self.report(run_date) or {"stages": {}})
        similar = self._file_of([self.night(run_date)], SIMILAR, sha256)
        return self.is_intact(run_date) and (sha256 is None or similar is not None)

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

    def switches(self, target: Target, run_date: date) -> bool:
        """Return whether publishing a night changes the table at a target.

        It does if no later night is published, or if a dated target holds later nights, which readers continue to read.
        """
        if self.is_newest(run_date):
            return True
        # After a rollback the target holds no later nights, and this one would become what readers read.
        return target.is_dated and any(night >= run_date for night in self.current_nights())

    def current_nights(self) -> list[date]:
        """List the nights whose table equals the current table: several if a night changed nothing."""
        current = self.current.sha256()
        return [night for night in self.dates() if current is not None and self.recs_sha256(night) == current]

    def is_published(self, run_date: date, recs_sha256: str, similar_sha256: str | None = None) -> bool:
        """Return whether a night is published with tables of these bytes, and readers need not be switched to them.

        They need not be if these tables are current already, if a later night is published, or if this night was rolled
        back and an earlier night's table is current. similar_sha256: None without similar items.
        """
        if run_date not in self.dates() or self.recs_sha256(run_date) != recs_sha256 or not self.is_intact(run_date):
            return False
        current = self.current_nights()
        if current and self.decisions.is_rolled_back(run_date, recs_sha256):
            return True
        if similar_sha256 is not None and not self._has_similar(run_date, similar_sha256):
            return False
        return run_date in current or not self.is_newest(run_date)

    def _has_similar(self, run_date: date, sha256: str) -> bool:
        """Return whether a night is published with this table of similar items, current if no later night is."""
        is_current = self.similar is None or not self.is_newest(run_date) or self.similar.sha256() == sha256
        return is_current and self._file_of([self.night(run_date)], SIMILAR, sha256) is not None

    def decided(self, run_date: date) -> DecidedNight | None:
        """Return what a night was about to be published with; None if the report or a table is not intact.

        A run that was killed may already have moved the tables into the night's folder.
        """
        report = self.decisions.report(run_date)
        if report is None:
            return None
        folders = [self.work(run_date), self.night(run_date)]
        recs = self._file_of(folders, RECS, report["recs_sha256"])
        similar = self._file_of(folders, SIMILAR, similar_sha256(report))
        if recs is None or (similar is None and similar_sha256(report) is not None):
            return None
        return DecidedNight(report, recs, similar)

    def make_current(self, run_date: date) -> None:
        """Switch the current tables to those of a published night."""
        with ExitStack() as switches:
            for target, table in self.published_tables(run_date):
                switches.enter_context(target.replacing(table))
            _log.info("night %s was published but was not the current table; it is now", run_date)

    def prune(self, keep: int, tonight: date) -> None:
        """Delete all nights except the newest `keep`, tonight and the current one, and failed reports before them.

        Also deletes the histories of all but the newest night.
        """
        for night in set(self.dates()[:-keep]) - {tonight, *self.current_nights()}:
            # Hidden by one rename, so that no reader finds half a night.
            folder = self.night(night)
            folder.rename(folder.with_name(f".{_GONE}.{folder.name}.{secrets.token_hex(4)}"))
        put_on_disk([self.folder])
        for gone in self.folder.glob(f".{_GONE}.*"):
            remove(gone)
        for night in self.dates()[:-1]:
            (self.night(night) / HISTORIES).unlink(missing_ok=True)
        self.failed.forget_before(min(self.dates(), default=tonight))

    def clean_up(self, run_date: date) -> None:
        """Remove what a published night no longer needs: its decision, its work, the report of an earlier failure."""
        # The decision first, and synced: if it came back, the next start would publish a night that was rolled back.
        self.decisions.remove(run_date)
        self.failed.forget(run_date)
        remove(self.work(run_date))
        put_on_disk([self.folder])

    def discard_work_before(self, run_date: date) -> None:
        """Delete the work on earlier nights, which were not published."""
        for work in self.folder.glob(".run_date=*"):
            if work.name < self.work(run_date).name:
                remove(work)


def similar_sha256(report: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the similar items of a night by its report; None if it made none."""
    sha256: str | None = report["stages"].get("similar", {}).get("sha256")
    return sha256


def _published_table(file: Path, sha256: str, report: dict[str, Any]) -> PublishedTable:
    """Return a table as a target takes it; report: of its night."""
    run_date, model_id = date.fromisoformat(report["run_date"]), report["stages"]["score"]["model_id"]
    return PublishedTable(file, run_date, sha256, report["run_id"], model_id)


def published_nights(folder: Path) -> list[date]:
    """List the nights of the archive in a folder, oldest first: folders that hold a table or report, intact or not."""
    return parse_dates(
        path.name.removeprefix("run_date=")
        for path in folder.glob("run_date=*")
        if (path / REPORT).exists() or (path / RECS).exists()
    )
