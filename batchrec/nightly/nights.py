"""The folder of the nights: the table and the report of each, and the one that is out."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.artifact import file_sha256, replacing_folder
from batchrec.config import as_date
from batchrec.errors import ConfigError
from batchrec.nightly.report import read_report, report_to_json
from batchrec.tables import replacing
from batchrec.temporaries import put_on_disk, remove

_log = logging.getLogger(__name__)

_REPORT, _RECS = "report.json", "recs.parquet"


@dataclass(frozen=True)
class Nights:
    """The nights in `folder`, of which the newest one's table stands at `out` too, for every reader.

    folder/run_date=2026-11-24/   recs.parquet and report.json of a night that was published, and the rows it rejected
    folder/.run_date=2026-11-24/  work on a night that is not published yet
    folder/failed/2026-11-24.json why it was not
    """

    folder: Path
    out: Path

    def work(self, run_date: date) -> Path:
        """Name the folder in which a night is made."""
        return self.folder / f".run_date={run_date}"

    def dates(self) -> list[date]:
        """List the nights that were published, oldest first."""
        if not self.folder.is_dir():
            return []
        named = [
            as_date(path.name.removeprefix("run_date=")) for path in self.folder.glob("run_date=*") if path.is_dir()
        ]
        return sorted(night for night in named if night is not None)

    def before(self, run_date: date) -> list[date]:
        """List those before a night."""
        return [night for night in self.dates() if night < run_date]

    def reports(self, nights: Sequence[date]) -> list[dict[str, Any]]:
        """Read the reports of published nights, but for those that are lost or damaged, of which a warning tells."""
        found = []
        for night in nights:
            report = self.report(night)
            if report is None:
                _log.warning("night %s: its report is lost or damaged, and is left out", night)
            else:
                found.append(report)
        return found

    def table(self, run_date: date) -> Path:
        """Name the table of a published night."""
        return self.folder / f"run_date={run_date}" / _RECS

    def report(self, run_date: date) -> dict[str, Any] | None:
        """Read the report of a published night; None where it is lost or damaged."""
        return read_report(self.folder / f"run_date={run_date}" / _REPORT)

    def recs_sha256(self, run_date: date) -> str | None:
        """Give the SHA-256 that a night's table had when it was published; None where its report is lost."""
        report = self.report(run_date)
        return None if report is None else report["recs_sha256"]

    def is_whole(self, run_date: date) -> bool:
        """Tell whether the table of a published night is still the one that was published."""
        table = self.table(run_date)
        return table.is_file() and file_sha256(table) == self.recs_sha256(run_date)

    def last_whole(self, nights: Sequence[date]) -> Path | None:
        """Give the table of the last of some nights that is still the one that was published."""
        for night in reversed(nights):
            if self.is_whole(night):
                return self.table(night)
            _log.warning("%s: lost or damaged, and is left out", self.table(night))
        return None

    def is_newest(self, run_date: date) -> bool:
        """Tell whether no later night is published."""
        return all(night <= run_date for night in self.dates())

    def nights_out(self) -> list[date]:
        """List the nights whose table is the one at `out`, byte by byte: several where one has changed nothing."""
        out = file_sha256(self.out) if self.out.is_file() else None
        return [night for night in self.dates() if out is not None and self.recs_sha256(night) == out]

    def is_published(self, run_date: date, recs_sha256: str) -> bool:
        """Tell whether the table of a night has these bytes already, and none but a night's is at `out`."""
        if run_date not in self.dates() or self.recs_sha256(run_date) != recs_sha256 or not self.is_whole(run_date):
            return False
        return bool(self.nights_out()) or not self.is_newest(run_date)

    def decide(self, run_date: date, report: dict[str, Any]) -> None:
        """Note that a night is to be published as the work on it stands: a run that is killed now does it first."""
        with replacing(self.work(run_date) / _REPORT) as temporary:
            temporary.write_text(report_to_json(report), encoding="utf-8")

    def decided(self, run_date: date) -> dict[str, Any] | None:
        """Give the report of a night that an earlier run was about to publish; None where there is none."""
        report, recs = read_report(self.work(run_date) / _REPORT), self.work(run_date) / _RECS
        is_whole = report is not None and recs.is_file() and file_sha256(recs) == report["recs_sha256"]
        return report if is_whole else None

    def publish(
        self, run_date: date, recs: Path, rejects: Path, report: dict[str, Any], use_model: Callable[[], None]
    ) -> None:
        """Put a night's table and report in their place: a rename; then, if no later night is out, the table at `out`.

        rejects: file of the rows that could not be used, kept with them if it is there.
        use_model: switches the model; called only then, and when all is written, so that a full disk is found before.
        """
        is_newest = self.is_newest(run_date)
        with (
            self._put_out(recs) if is_newest else nullcontext(),
            replacing_folder(self.table(run_date).parent, marked_by=(_REPORT, _RECS)) as folder,
        ):
            _link(recs, folder / _RECS)
            if rejects.exists():
                _link(rejects, folder / rejects.name)
            (folder / _REPORT).write_text(report_to_json(report), encoding="utf-8")
            put_on_disk(folder.iterdir())
            if is_newest:
                use_model()
        if not is_newest:
            _log.warning("%s stays as it is, and so does the model in use: a later night is published", self.out)
        self.settle(run_date)

    @contextmanager
    def _put_out(self, table: Path) -> Iterator[None]:
        """Let a table be the one at `out` when the block has ended: all but a rename is done before."""
        with replacing(self.out) as temporary:
            temporary.unlink(missing_ok=True)
            _link(table, temporary)
            put_on_disk([temporary])
            yield

    def roll_back(self, to: date | None = None) -> date:
        """Put the table of a night at `out`, or of the newest before the one that is there; gives its run date.

        Raises ConfigError where there is no such night, the table at `out` is of none, or a byte of that to go back to
        has changed.
        """
        dates = self.dates()
        if to is None:
            out = self.nights_out()
            if not out:
                raise ConfigError(f"{self.out}: is the table of no night in {self.folder}. Pass --to a run date")
            dates = [night for night in self.before(out[-1]) if night not in out and self.report(night) is not None]
        elif to not in dates:
            dates = []
        if not dates:
            raise ConfigError(f"{self.folder}: there is no {f'night {to}' if to else 'other night before this one'}")
        night = to or dates[-1]
        table = self.table(night)
        if not self.is_whole(night):
            raise ConfigError(
                f"{table}: is not the table that was published: its SHA-256 has changed, or its report is lost"
            )
        with self._put_out(table):
            _log.info("going back to night %s", night)
        return night

    def keep_failed(self, run_date: date, report: dict[str, Any]) -> None:
        """Keep the report of a night that was not published."""
        file = self._failed(run_date)
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_text(report_to_json(report), encoding="utf-8")

    def prune(self, keep: int, tonight: date) -> None:
        """Delete all nights but the newest `keep`, tonight and the one that is out, and failed reports before them."""
        for night in set(self.dates()[:-keep]) - {tonight, *self.nights_out()}:
            remove(self.work(night))
            # Out of sight in one step: no reader finds half of a night.
            self.table(night).parent.rename(self.work(night))
            remove(self.work(night))
        oldest = str(self.dates()[0])
        for file in self._failed(self.dates()[0]).parent.glob("*.json"):
            if file.stem < oldest:
                file.unlink()

    def settle(self, run_date: date) -> None:
        """Forget what is left of a night that is published: the work on it, and why it had failed."""
        self._failed(run_date).unlink(missing_ok=True)
        remove(self.work(run_date))

    def give_up_before(self, run_date: date) -> None:
        """Delete the work on earlier nights that were not published."""
        for work in self.folder.glob(".run_date=*"):
            if work.name < self.work(run_date).name:
                remove(work)

    def _failed(self, run_date: date) -> Path:
        return self.folder / "failed" / f"{run_date}.json"


def _link(table: Path, name: Path) -> None:
    """Give a table a second name, or copy it where that is on another disk, or one that knows no links."""
    try:
        os.link(table, name)
    except OSError:
        shutil.copyfile(table, name)
