"""The publication of a night: what it consists of, and the order of its steps. night.py decides whether to publish."""

import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.nightly.archive import HISTORIES, RECS, SIMILAR, Archive
from batchrec.nightly.decisions import REPORT
from batchrec.nightly.registry import ModelRegistry, ModelVersion
from batchrec.nightly.report import report_to_json
from batchrec.system.atomic import replacing_folder
from batchrec.system.disk import link_or_copy, put_on_disk, try_link

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """A night that passed its gates.

    recs: the table. similar: that of similar items, None without one. rejects: file of the rows that could not be used,
    kept with the night if it exists. histories: kept likewise, None if they need not be. model: the version that made
    the tables.
    """

    run_date: date
    recs: Path
    similar: Path | None
    rejects: Path
    histories: Path | None
    report: dict[str, Any]
    model: ModelVersion

    def publish(self, archive: Archive, registry: ModelRegistry) -> None:
        """Write everything under temporary names, then switch readers over: by renames, or by the target's own switch.

        A full disk is found while writing, when nothing is switched yet. The places may lie on several disks: each
        rename is synced before the next one. If a later night is published, only the night's own folder is switched,
        and its rows in a dated target.
        """
        is_newest = archive.is_newest(self.run_date)
        # The stack unwinds in reverse order: the night's folder is renamed first, then the table of similar items, then
        # that of recommendations, by which a later run knows which night is current.
        with ExitStack() as renames:
            tables = archive.tables(self.report, self.recs, self.similar)
            switched = [(target, table) for target, table in tables if archive.switches(target, self.run_date)]
            for target, table in switched:
                renames.enter_context(target.replacing(table))
            night = replacing_folder(archive.night(self.run_date), marked_by=(REPORT, RECS))
            self._write(renames.enter_context(night))
            if is_newest:
                registry.use(self.model)
        if is_newest:
            archive.decisions.forget_rollback()
        else:
            kept = "rows of other run dates at %s stay as they are" if archive.current.is_dated else "%s stays as it is"
            _log.warning(f"{kept}, and so does the model in use: a later night is published", archive.current)
            if archive.current.is_dated and not switched:
                _log.warning(
                    "nothing is published at %s: it holds no later night, as after a rollback. If it is new, publish "
                    "the newest night there first",
                    archive.current,
                )
        archive.clean_up(self.run_date)

    def _write(self, folder: Path) -> None:
        """Fill the folder of the night, and wait until the disk holds the files."""
        link_or_copy(self.recs, folder / RECS)
        if self.similar is not None:
            link_or_copy(self.similar, folder / SIMILAR)
        if self.rejects.exists():
            link_or_copy(self.rejects, folder / self.rejects.name)
        # Only for the page of the night: they are linked or left out, never copied.
        if self.histories is not None:
            with suppress(OSError):
                try_link(self.histories, folder / HISTORIES)
        (folder / REPORT).write_text(report_to_json(self.report), encoding="utf-8")
        put_on_disk(folder.iterdir())
