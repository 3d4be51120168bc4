"""The nights that failed: the report and the page of each, until it is published or all older nights are deleted."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.config import parse_dates
from batchrec.nightly.report import read_failed_report, report_to_json
from batchrec.system.atomic import replacing
from batchrec.system.disk import make_folder


@dataclass(frozen=True)
class FailedNights:
    """The files of the nights that failed: folder/2026-11-24.json, the report, and folder/2026-11-24.html, the page."""

    folder: Path

    def dates(self) -> list[date]:
        """List the nights, oldest first."""
        return parse_dates(file.stem for file in self.folder.glob("*.json"))

    def report(self, run_date: date) -> dict[str, Any] | None:
        """Read the report of a night; None if it is missing or damaged."""
        return read_failed_report(self._report(run_date), run_date)

    def page(self, run_date: date) -> Path:
        """Return the file of the page of a night."""
        return self._report(run_date).with_suffix(".html")

    def write_report(self, run_date: date, report: dict[str, Any]) -> None:
        """Write the report of a night."""
        make_folder(self.folder)
        with replacing(self._report(run_date)) as temporary:
            temporary.write_text(report_to_json(report), encoding="utf-8")

    def forget(self, run_date: date) -> None:
        """Delete the report and the page of a night."""
        self._report(run_date).unlink(missing_ok=True)
        self.page(run_date).unlink(missing_ok=True)

    def forget_before(self, oldest: date) -> None:
        """Delete the reports and pages of the nights before a run date."""
        for file in [*self.folder.glob("*.json"), *self.folder.glob("*.html")]:
            if file.stem < str(oldest):
                file.unlink()

    def _report(self, run_date: date) -> Path:
        return self.folder / f"{run_date}.json"
