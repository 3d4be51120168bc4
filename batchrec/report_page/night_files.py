"""The files of a night that its page is made from."""

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from batchrec.config import CatalogueConfig
from batchrec.report_page.blocks import MissingError
from batchrec.sources.catalogue import Catalogue, read_catalogue
from batchrec.tables.queries import literal, rows_of


@dataclass(frozen=True)
class NightFiles:
    """A finished night: its report as in report.json, and the files it left. None for those that it lacks.

    recs: the table. histories: sequences.parquet. model: folder of the model that made the table. previous: run date
    and table of the published night before. earlier: reports of the published nights before, oldest first.
    evaluation: the JSON of evaluate.
    """

    report: dict[str, Any]
    recs: Path | None = None
    histories: Path | None = None
    model: Path | None = None
    previous: tuple[date, Path] | None = None
    earlier: list[dict[str, Any]] = field(default_factory=list)
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    evaluation: Path | None = None

    @property
    def inputs(self) -> list[Path]:
        """The files that are read, which the page must not replace."""
        previous = None if self.previous is None else self.previous[1]
        catalogue = None if self.catalogue.items is None else Path(self.catalogue.items)
        named = (self.recs, self.histories, previous, self.evaluation, catalogue)
        return [file for file in named if file is not None]

    @property
    def run_date(self) -> date:
        """The date of the night."""
        return date.fromisoformat(self.report["run_date"])

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The reports of the stages that ended."""
        stages: dict[str, dict[str, Any]] = self.report["stages"]
        return stages

    def stage(self, name: str) -> dict[str, Any]:
        """Return the report of a stage. Raises MissingError if the night did not complete it."""
        if name not in self.stages:
            raise MissingError(f"The night did not complete the stage {name}.")
        return self.stages[name]

    @property
    def table(self) -> Path:
        """The table. Raises MissingError without one."""
        if self.recs is None:
            raise MissingError("The table of this night is lost, damaged, or was not made.")
        return self.recs

    @property
    def sequences(self) -> Path:
        """The histories. Raises MissingError without them."""
        if self.histories is None:
            raise MissingError("The histories of this night are not kept: only those of the newest night are.")
        return self.histories


@dataclass(frozen=True)
class NightTables:
    """The tables of a night in a DuckDB: queries see files, and return few rows."""

    con: duckdb.DuckDBPyConnection
    files: NightFiles

    def rows(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """Run sql/report/<name>.sql, and return its rows; a value that is a path is passed as a file to read."""
        paths = {key: literal(value) if isinstance(value, Path) else value for key, value in values.items()}
        return rows_of(self.con, f"report/{name}", **paths)

    @cached_property
    def catalogue(self) -> Catalogue | None:
        """The titles of items, read once; None without a catalogue. Raises as read_catalogue."""
        item_type = pq.read_schema(self.files.table).field("item_id").type
        return read_catalogue(self.files.catalogue, item_type, self.files.run_date)

    @property
    def columns(self) -> list[str]:
        """The columns of the night's table."""
        names: list[str] = pq.read_schema(self.files.table).names
        return names
