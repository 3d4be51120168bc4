"""The page of a finished night: finds the files that it is made from, and writes it."""

import logging
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from batchrec.config import CatalogueConfig, ReportConfig
from batchrec.errors import ConfigError, ModelError
from batchrec.model.directory import model_files
from batchrec.nightly.archive import HISTORIES, PAGE, RECS, Archive
from batchrec.nightly.decisions import REPORT
from batchrec.nightly.registry import ModelRegistry
from batchrec.report_page.night_files import NightFiles
from batchrec.report_page.page import check_installed, write_page
from batchrec.system.atomic import check_no_input

_log = logging.getLogger(__name__)

# The nights of the trend before the night itself.
_MAX_EARLIER = 29
# Files that the archive keeps, except pages.
_KEPT = ("run_date=*/*.json", "run_date=*/*.parquet", "failed/*.json")


@dataclass(frozen=True)
class NightPages:
    """The pages of the nights of an archive; catalogue: where titles are read from."""

    archive: Archive
    registry: ModelRegistry
    catalogue: CatalogueConfig

    def write_next_to_report(self, run_date: date) -> None:
        """Write the page of a night next to its report. If the packages of the extra cannot be used, only log it."""
        try:
            check_installed()
        except ConfigError as error:
            _log.info("the night gets no page: %s", error)
            return
        files = self.files(run_date)
        is_published = files.report["failed"] is None
        out = self.archive.night(run_date) / PAGE if is_published else self.archive.failed.page(run_date)
        # Spilled next to the nights, so that the next page removes what a killed run left.
        write_page(files, out, self.archive.folder)

    def is_written(self, run_date: date) -> bool:
        """Return whether a published night has a page that is not older than its report."""
        page, report = self.archive.night(run_date) / PAGE, self.archive.night(run_date) / REPORT
        try:
            return page.stat().st_mtime_ns >= report.stat().st_mtime_ns
        except OSError:
            return False

    def write_to(self, out: Path, run_date: date | None, config: ReportConfig) -> date:
        """Write the page of a night to `out`; run_date: None for the newest night. Returns its run date.

        Raises ConfigError if there is no such night, if its report is lost or damaged, if `out` is a file that is read,
        the current table, or cannot be written, or if the packages of the extra cannot be used.
        """
        check_installed()
        nights = [*self.archive.dates(), *self.archive.failed.dates()]
        if not nights:
            raise ConfigError(
                f"{self.archive.folder}: no night has finished yet. Run batchrec run, or set run --nights"
            )
        night = run_date or max(nights)
        files = self.files(night, None if config.evaluation is None else Path(config.evaluation))
        kept = [file for name in _KEPT for file in self.archive.folder.glob(name)]
        model = [] if files.model is None else model_files(files.model)
        check_no_input(out, [*files.inputs, *kept, *model, str(self.archive.current)])
        write_page(files, out)
        return night

    def files(self, run_date: date, evaluation: Path | None = None) -> NightFiles:
        """Find the files of a night that failed or, if it did not, was published. Lost and damaged ones are None.

        Raises ConfigError if there is no such night, or if its report is lost or damaged.
        """
        failed = self.archive.failed.report(run_date)
        report = failed or self.archive.report(run_date)
        if report is None:
            raise ConfigError(
                f"{self.archive.folder}: night {run_date} has not finished, or its report is lost or damaged. Pass "
                "another --run-date"
            )
        folder = self.archive.night(run_date) if failed is None else self.archive.work(run_date)
        is_scored = self.archive.is_intact(run_date) if failed is None else "score" in report["stages"]
        before = self.archive.dates_before(run_date)
        previous = self.archive.last_intact(before)
        return NightFiles(
            report=report,
            recs=_existing(folder / RECS) if is_scored else None,
            histories=_existing(folder / HISTORIES) if "build-sequences" in report["stages"] else None,
            model=self._model(report["model"], folder / "model" if "train" in report["stages"] else None),
            previous=None if previous is None else (date.fromisoformat(previous.parent.name[-10:]), previous),
            earlier=self.archive.reports(before[-_MAX_EARLIER:]),
            catalogue=self.catalogue,
            evaluation=evaluation,
        )

    def _model(self, name: str | None, trained: Path | None) -> Path | None:
        """Return the folder of a night's model: that of its name or, if it failed, the new one or the one in use."""
        if name is not None:
            return self.registry.folder / name
        try:
            current = self.registry.current
        except ModelError:
            current = None
        return trained or (None if current is None else current.folder)


def _existing(file: Path) -> Path | None:
    return file if file.is_file() else None
