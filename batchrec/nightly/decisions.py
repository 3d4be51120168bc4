"""Records of decisions about nights: to publish a night (night.py), or to roll nights back (rollback.py)."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.config import parse_dates
from batchrec.errors import ConfigError
from batchrec.nightly.report import read_report, report_to_json
from batchrec.system.atomic import replacing
from batchrec.system.disk import put_on_disk
from batchrec.system.json_text import to_json

REPORT = "report.json"


@dataclass(frozen=True)
class DecidedNight:
    """The report and the tables that a night is to be published with; similar: None if it made none."""

    report: dict[str, Any]
    recs: Path
    similar: Path | None


@dataclass(frozen=True)
class Decisions:
    """The decisions in the folder of the archive.

    folder/.run_date=2026-11-24/report.json  publish that night; removed, before any other file, once it is published
    folder/rolled-back.json                  the nights that were rolled back, and the SHA-256 of each one's table
    """

    folder: Path

    def work(self, run_date: date) -> Path:
        """Return the folder for the work on a night."""
        return self.folder / f".run_date={run_date}"

    def dates(self) -> list[date]:
        """List the nights that are decided but not yet published, oldest first."""
        return parse_dates(
            work.name.removeprefix(".run_date=")
            for work in self.folder.glob(".run_date=*")
            if (work / REPORT).is_file()
        )

    def add(self, run_date: date, report: dict[str, Any]) -> None:
        """Decide to publish a night with the tables in its work folder. A power cut does not undo the decision."""
        with replacing(self.work(run_date) / REPORT) as temporary:
            temporary.write_text(report_to_json(report), encoding="utf-8")
        self.sync(run_date)

    def sync(self, run_date: date) -> None:
        """Wait until a power cut can no longer undo the decision on a night: a killed run may not have waited."""
        put_on_disk([self.work(run_date), self.folder])

    def report(self, run_date: date) -> dict[str, Any] | None:
        """Read the report to publish a night with; None if it is missing or damaged."""
        return read_report(self.work(run_date) / REPORT, run_date)

    def remove(self, run_date: date) -> None:
        """Remove the decision to publish a night. A power cut does not bring it back."""
        work = self.work(run_date)
        if (work / REPORT).is_file():
            (work / REPORT).unlink()
        if work.is_dir():
            put_on_disk([work])

    def roll_back(self, tables: Mapping[date, str]) -> None:
        """Note which nights are rolled back, and remove all decisions to publish. tables: SHA-256 of each table."""
        with replacing(self._rolled_back) as temporary:
            temporary.write_text(to_json({str(night): sha256 for night, sha256 in tables.items()}) + "\n", "utf-8")
        for night in self.dates():
            self.remove(night)
        # Including what a killed run removed and did not sync.
        put_on_disk([*(work for work in self.folder.glob(".run_date=*") if work.is_dir()), self.folder])

    def is_rolled_back(self, run_date: date, recs_sha256: str) -> bool:
        """Return whether a night was rolled back when its table had this SHA-256.

        Raises ConfigError if the file cannot be read: otherwise a night that was rolled back would be published again.
        """
        file = self._rolled_back
        if not os.path.lexists(file):
            return False
        try:
            rolled_back = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        except (OSError, ValueError, RecursionError):
            rolled_back = None
        if not isinstance(rolled_back, dict) or len(parse_dates(rolled_back)) < len(rolled_back):
            raise ConfigError(
                f"{file}: cannot be read; expected a JSON object with the nights that were rolled back and must not "
                "be published again. Restore it, or remove it if no rollback must be remembered"
            )
        return rolled_back.get(str(run_date)) == recs_sha256

    def forget_rollback(self) -> None:
        """Forget which nights were rolled back: a newer table is current."""
        self._rolled_back.unlink(missing_ok=True)

    @property
    def _rolled_back(self) -> Path:
        return self.folder / "rolled-back.json"
