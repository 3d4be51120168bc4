"""A local folder as target: run_date=2026-11-24/part-*.parquet, one folder per run date, switched by a rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.config import TargetLayout, parse_date
from batchrec.errors import ConfigError, one_line
from batchrec.system.atomic import check_writable, switch_folder
from batchrec.system.disk import link_or_copy, make_folder, put_on_disk
from batchrec.system.temporaries import temporary_folder
from batchrec.targets.parts import PARTS, part_schema, recorded_sha256, write_parts
from batchrec.targets.rows import RUN_DATE, check_columns, check_part_types, open_rows
from batchrec.targets.target import PublishedTable

_DATED = "run_date="


@dataclass(frozen=True)
class LocalFolder:
    """A table in a local folder with a folder per run date."""

    folder: Path
    layout: TargetLayout = "long"
    is_dated = True

    def __str__(self) -> str:
        return f"{self.folder}/"

    @staticmethod
    def is_at(path: Path) -> bool:
        """Return whether a path is a folder with rows that batchrec has written."""
        return any(path.glob(f"{_DATED}*/{PARTS}"))

    def check_writable(self) -> None:
        """Raise ConfigError if no folder can be created in it, or if it holds something else."""
        check_writable(self.folder)
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise ConfigError(f"{self.folder}: is a file; expected a folder. Pass another --out")
        for path in [*self.folder.iterdir(), *self.folder.glob(f"{_DATED}*/*")]:
            is_ours = path.match(PARTS) if path.parent != self.folder else _date_of(path) is not None
            if not is_ours and not path.name.startswith("."):
                raise ConfigError(
                    f"{path}: was not written by batchrec; expected only {_DATED}YYYY-MM-DD/{PARTS} in {self}. "
                    "Pass another --out"
                )
        for part in self._newest_parts()[:1]:
            try:
                names = pq.read_schema(part).names
            except pa.ArrowException as error:
                raise ConfigError(
                    f"{part}: is not a Parquet file: {one_line(error)}. Move it away, or pass another --out"
                ) from error
            check_columns([*names, RUN_DATE], self.layout, self)
        # The new rows are written next to the folder: a glob like */*.parquet must not find them.
        if not os.access(self._root, os.W_OK) or self._root.stat().st_dev != self._root.parent.stat().st_dev:
            raise ConfigError(
                f"{self.folder}: cannot be written, or is on another disk than {self._root.parent}. Pass a folder "
                "within it as --out"
            )

    def check_table(self, table: PublishedTable) -> None:
        """Raise ConfigError if the rows of the run date before the table's have other types."""
        earlier = [folder for folder in self._dated() if folder.name < _name(table.run_date)]
        parts = sorted(max(earlier).glob(PARTS)) if earlier else []
        if parts:
            with self._as_config_errors():
                check_part_types(part_schema(parts[0]), table, self.layout, self)

    def sync(self) -> None:
        """Sync the folder and the one that holds it, if they exist."""
        put_on_disk(folder for folder in (self._root.parent, self._root) if folder.is_dir())

    def sha256(self) -> str | None:
        """Return the SHA-256 that the files of the newest run date record; None without any."""
        parts = self._newest_parts()
        return recorded_sha256(parts[0]) if parts else None

    @contextmanager
    def replacing(self, table: PublishedTable) -> Iterator[None]:
        """Write the rows next to the folder, then exchange the folder of the run date if the block ends."""
        self.check_table(table)
        with self._as_config_errors(), temporary_folder(self.folder) as temporary:
            new = self._write(table, temporary)
            make_folder(self._root)
            yield
            switch_folder(new, self._root / new.name)
            # Before the old rows are deleted: a power cut must not bring back a folder without them.
            put_on_disk([self._root, temporary])

    @contextmanager
    def rolling_back(self, table: PublishedTable) -> Iterator[None]:
        """Make the folder once more, of links to the rows before the run date, and exchange all of it."""
        with self._as_config_errors(), temporary_folder(self.folder) as temporary:
            make_folder(self._root)
            root = temporary / "root"
            left_out = [folder.name for folder in self._dated() if folder.name >= _name(table.run_date)]
            shutil.copytree(
                self._root,
                root,
                symlinks=True,
                ignore=lambda folder, _: left_out if Path(folder) == self._root else [],
                copy_function=lambda file, name: link_or_copy(Path(file), Path(name)),
            )
            self._write(table, root)
            put_on_disk([*root.iterdir(), root, temporary])
            yield
            switch_folder(root, self._root)
            put_on_disk([self._root.parent, temporary])

    @property
    def _root(self) -> Path:
        """The folder itself, where a link leads to it."""
        return Path(os.path.realpath(self.folder))

    def _dated(self) -> list[Path]:
        return [path for path in self.folder.glob(f"{_DATED}*") if _date_of(path) is not None]

    def _newest_parts(self) -> list[Path]:
        """Return the files of the newest run date; none if there is no run date."""
        dated = sorted(self._dated())
        return sorted(dated[-1].glob(PARTS)) if dated else []

    def _write(self, table: PublishedTable, parent: Path) -> Path:
        """Write the rows to a folder of their run date in `parent`, and wait until the disk holds them."""
        folder = parent / _name(table.run_date)
        folder.mkdir()
        with open_rows(table, self.layout, is_dated=False) as rows:
            write_parts(rows, table.metadata, lambda name: (folder / name).open("wb"))
        put_on_disk([*folder.iterdir(), folder, parent])
        return folder

    @contextmanager
    def _as_config_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self}: cannot be written: {error.strerror or error}") from error


def _name(run_date: date) -> str:
    return f"{_DATED}{run_date}"


def _date_of(path: Path) -> date | None:
    """Return the run date of a folder; None for all other paths."""
    return parse_date(path.name.removeprefix(_DATED)) if path.name.startswith(_DATED) and path.is_dir() else None
