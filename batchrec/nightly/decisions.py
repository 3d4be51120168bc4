"""What was decided of nights, apart from their tables: to publish one, or to go back from some."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.config import parse_date
from batchrec.errors import ConfigError
from batchrec.nightly.report import read_report, report_to_json
from batchrec.system.atomic import replacing
from batchrec.system.disk import put_on_disk
from batchrec.system.json_text import to_json

REPORT = "report.json"


@dataclass(frozen=True)
class Decisions:
    """The decisions in a folder of nights.

    folder/.run_date=2026-11-24/report.json  that night is to be published; goes, by itself, once its table is out
    folder/rolled-back.json                  nights that were rolled back, and the SHA-256 of each one's table
    """

    folder: Path

    def work(self, run_date: date) -> Path:
        """Return the folder in which a night is made."""
        return self.folder / f".run_date={run_date}"

    def dates(self) -> list[date]:
        """List the nights that are to be published, oldest first."""
        named = [
            parse_date(work.name.removeprefix(".run_date="))
            for work in self.folder.glob(".run_date=*")
            if (work / REPORT).is_file()
        ]
        return sorted(night for night in named if night is not None)

    def publish(self, run_date: date, report: dict[str, Any]) -> None:
        """Note that a night is to be published as the work on it is now; a power cut does not change that."""
        with replacing(self.work(run_date) / REPORT) as temporary:
            temporary.write_text(report_to_json(report), encoding="utf-8")
        self.keep(run_date)

    def keep(self, run_date: date) -> None:
        """Wait until a power cut can no longer change what was decided of a night: a run may be killed before that."""
        put_on_disk([self.work(run_date), self.folder])

    def report(self, run_date: date) -> dict[str, Any] | None:
        """Read the report that a night is to be published with; None if there is none, or it is damaged."""
        return read_report(self.work(run_date) / REPORT, run_date)

    def drop(self, run_date: date) -> None:
        """Forget that a night was to be published; a power cut does not bring that back."""
        work = self.work(run_date)
        if (work / REPORT).is_file():
            (work / REPORT).unlink()
        if work.is_dir():
            put_on_disk([work])

    def roll_back(self, tables: Mapping[date, str]) -> None:
        """Note what is rolled back, and forget all that was to be published. tables: SHA-256 of each night's."""
        with replacing(self._rolled_back) as temporary:
            temporary.write_text(to_json({str(night): sha256 for night, sha256 in tables.items()}) + "\n", "utf-8")
        for night in self.dates():
            self.drop(night)
        # Also what a run that was killed had forgotten, and the disk not yet.
        put_on_disk([*(work for work in self.folder.glob(".run_date=*") if work.is_dir()), self.folder])

    def is_rolled_back(self, run_date: date, recs_sha256: str) -> bool:
        """Tell whether a night was rolled back, and its table is still the one of that time.

        Raises ConfigError if the file that says so cannot be read: what was rolled back would be published again.
        """
        file = self._rolled_back
        if not os.path.lexists(file):
            return False
        try:
            found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        except (OSError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ConfigError(
                f"{file}: cannot be read; expected a JSON object of the nights that were rolled back and must not be "
                "published again. Restore it, or remove it if no rollback is to be remembered"
            )
        return found.get(str(run_date)) == recs_sha256

    def forget_rollback(self) -> None:
        """Forget what was rolled back: a newer table is out."""
        self._rolled_back.unlink(missing_ok=True)

    @property
    def _rolled_back(self) -> Path:
        return self.folder / "rolled-back.json"
