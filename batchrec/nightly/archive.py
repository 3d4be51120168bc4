"""The folder of the nights: the table and the report of each, and the one that is out."""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.config import parse_date
from batchrec.errors import ConfigError
from batchrec.nightly.decisions import REPORT, Decisions
from batchrec.nightly.report import read_report, report_to_json
from batchrec.system.atomic import replacing, replacing_folder
from batchrec.system.disk import file_sha256, link_or_copy, make_folder, put_on_disk, remove

_log = logging.getLogger(__name__)

_RECS = "recs.parquet"
_GONE = "gone"


@dataclass(frozen=True)
class Nights:
    """The nights in `folder`, of which the newest one's table stands at `out` too, for every reader.

    folder/run_date=2026-11-24/   recs.parquet and report.json of a night that was published, and the rows it rejected
    folder/.run_date=2026-11-24/  work on a night that is not published yet
    folder/failed/2026-11-24.json why it was not
    """

    folder: Path
    out: Path

    @property
    def decisions(self) -> Decisions:
        """What was decided of nights."""
        return Decisions(self.folder)

    def work(self, run_date: date) -> Path:
        """Return the folder in which a night is made."""
        return self.decisions.work(run_date)

    def dates(self) -> list[date]:
        """List the nights that were published, oldest first: folders with a table or a report, whole or not."""
        named = [
            parse_date(path.name.removeprefix("run_date="))
            for path in self.folder.glob("run_date=*")
            if (path / REPORT).exists() or (path / _RECS).exists()
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
        """Read the report of a published night; None if it is missing, damaged or another night's."""
        return read_report(self.folder / f"run_date={run_date}" / REPORT, run_date)

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
        """Tell whether a night's table has these bytes already, and is out, or need not be.

        It need not be if a later night is published, or if this one was rolled back and an earlier one is out.
        """
        if run_date not in self.dates() or self.recs_sha256(run_date) != recs_sha256 or not self.is_whole(run_date):
            return False
        out = self.nights_out()
        is_rolled_back = bool(out) and self.decisions.is_rolled_back(run_date, recs_sha256)
        return run_date in out or is_rolled_back or not self.is_newest(run_date)

    def decided(self, run_date: date) -> tuple[dict[str, Any], Path] | None:
        """Return the report and the table with which a night is to be published; None if there are none, or not whole.

        A run that was killed may have published the night already, but not put it out.
        """
        report = self.decisions.report(run_date)
        for table in (self.work(run_date) / _RECS, self.table(run_date)):
            if report is not None and table.is_file() and file_sha256(table) == report["recs_sha256"]:
                return report, table
        return None

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
            replacing_folder(self.table(run_date).parent, marked_by=(REPORT, _RECS)) as folder,
        ):
            link_or_copy(recs, folder / _RECS)
            if rejects.exists():
                link_or_copy(rejects, folder / rejects.name)
            (folder / REPORT).write_text(report_to_json(report), encoding="utf-8")
            put_on_disk(folder.iterdir())
            if is_newest:
                use_model()
        if is_newest:
            self.decisions.forget_rollback()
        else:
            _log.warning("%s stays as it is, and so does the model in use: a later night is published", self.out)
        self.settle(run_date)

    def put_out(self, run_date: date) -> None:
        """Put the table of a published night at `out`."""
        with self._put_out(self.table(run_date)):
            _log.info("night %s is published, and was not out: it is now", run_date)

    @contextmanager
    def _put_out(self, table: Path) -> Iterator[None]:
        """Let a table be the one at `out` when the block has ended: all but a rename is done before."""
        with replacing(self.out, contents=table) as temporary:
            put_on_disk([temporary])
            yield

    def roll_back(self, to: date | None = None) -> date:
        """Put the table of a night at `out`, or of the newest before the one that is there; gives its run date.

        Raises ConfigError where there is no such night, the table at `out` is of none, or a byte of that to go back to
        has changed.
        """
        dates = self.dates()
        if to is None:
            # While a night is half published again, what is out may be the table that it had before.
            out = self.nights_out() or self.decisions.dates()
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
        self.decisions.roll_back(self._later_tables(night))
        with self._put_out(table):
            _log.info("going back to night %s", night)
        return night

    def _later_tables(self, night: date) -> dict[date, str]:
        """Return the SHA-256 of the tables of later nights."""
        tables = {later: self.recs_sha256(later) for later in self.dates() if later > night}
        return {later: sha256 for later, sha256 in tables.items() if sha256 is not None}

    def keep_failed(self, run_date: date, report: dict[str, Any]) -> None:
        """Keep the report of a night that was not published."""
        file = self._failed(run_date)
        make_folder(file.parent)
        with replacing(file) as temporary:
            temporary.write_text(report_to_json(report), encoding="utf-8")

    def prune(self, keep: int, tonight: date) -> None:
        """Delete all nights but the newest `keep`, tonight and the one that is out, and failed reports before them."""
        for night in set(self.dates()[:-keep]) - {tonight, *self.nights_out()}:
            # Out of sight in one step: no reader finds half of a night.
            table = self.table(night).parent
            table.rename(table.with_name(f".{_GONE}.{table.name}.{secrets.token_hex(4)}"))
        put_on_disk([self.folder])
        for gone in self.folder.glob(f".{_GONE}.*"):
            remove(gone)
        oldest = str(min(self.dates(), default=tonight))
        for file in self._failed(tonight).parent.glob("*.json"):
            if file.stem < oldest:
                file.unlink()

    def settle(self, run_date: date) -> None:
        """Forget what is left of a night that is published: the decision, the work on it, and why it had failed."""
        # First, and for good: what is decided is published by the next start, even if it was rolled back by then.
        self.decisions.drop(run_date)
        self._failed(run_date).unlink(missing_ok=True)
        remove(self.work(run_date))
        put_on_disk([self.folder])

    def give_up_before(self, run_date: date) -> None:
        """Delete the work on earlier nights that were not published."""
        for work in self.folder.glob(".run_date=*"):
            if work.name < self.work(run_date).name:
                remove(work)

    def _failed(self, run_date: date) -> Path:
        return self.folder / "failed" / f"{run_date}.json"
