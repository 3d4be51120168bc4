"""A folder of an object store as target: parts per run date, and a manifest, written last, that says which count."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from batchrec.config import TargetLayout
from batchrec.errors import ConfigError, StoreError, one_line
from batchrec.system.json_text import to_json
from batchrec.system.urls import Url, file_system
from batchrec.targets.object_store import check_store, client_errors, remove_uploads
from batchrec.targets.parts import PART_PATH, part_schema, write_parts
from batchrec.targets.rows import check_part_types, open_rows, other_layout
from batchrec.targets.target import PublishedTable

_log = logging.getLogger(__name__)

MANIFEST = "_manifest.json"
_CONTRACT = "recs-folder/1"

# Of each run date: files, rows, layout, run_id, model_id, sha256.
_RunDates = dict[str, dict[str, Any]]
_ENTRY = {"files": list, "rows": int, "layout": str, "sha256": str}


@dataclass(frozen=True)
class StoreFolder:
    """A table in a folder of an object store, such as s3://bucket/recs/. The manifest names the files of each date."""

    url: Url
    layout: TargetLayout = "long"
    is_dated = True

    def __str__(self) -> str:
        return str(self.url)

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written to the folder, ConfigError if it holds something else."""
        files = check_store(self.url, self._path("_probe"))
        with client_errors(self.url, "read"):
            run_dates = self._run_dates(files)
            layouts = {entry["layout"] for entry in run_dates.values()} - {self.layout}
            if layouts:
                raise ConfigError(
                    f"{self.url}: holds rows of the layout {layouts.pop()}; expected {self.layout}. Pass another "
                    f"--out{other_layout(self.layout)}"
                )
            # Also if there is a manifest: a publication lists the folder too. Consoles make an empty object for a new
            # folder, whose name ends with a slash.
            names = [path for path in self._list(files) if path and not path.endswith("/")]
            strangers = [path for path in names if not PART_PATH.fullmatch(path) and path != MANIFEST]
        if strangers and not run_dates:
            raise ConfigError(
                f"{self.url}: holds {strangers[0]}, and no {MANIFEST} of batchrec. Pass another folder as --out"
            )

    def check_table(self, table: PublishedTable) -> None:
        """Raise ConfigError if the rows of the run date before the table's have other types."""
        with client_errors(self.url, "read"):
            files = file_system(self.url)
            self._check_types(files, self._run_dates(files), table)

    def sync(self) -> None:
        """Do nothing: what a store has answered is durable."""

    def sha256(self) -> str | None:
        """Return the SHA-256 of the newest run date in the manifest; None if there is none."""
        with client_errors(self.url, "read"):
            run_dates = self._run_dates(file_system(self.url))
        return run_dates[max(run_dates)]["sha256"] if run_dates else None

    def replacing(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Write the rows to new parts, then the manifest if the block ends, then delete the parts of the old rows."""
        return self._switching(table, lambda _: True)

    def rolling_back(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Do the same as `replacing`, with a manifest without later run dates."""
        return self._switching(table, lambda run_date: run_date <= str(table.run_date))

    @contextmanager
    def _switching(self, table: PublishedTable, is_kept: Callable[[str], bool]) -> Iterator[None]:
        with client_errors(self.url):
            files = file_system(self.url)
            old = self._run_dates(files)
            self._check_types(files, old, table)
            # Leftovers of killed runs: a store does not fill up, but it bills.
            remove_uploads(files, self.url, lambda path: path.startswith(self._path("run_date=")))
            self._remove_unnamed(files)
        try:
            with client_errors(self.url):
                new = {run_date: entry for run_date, entry in old.items() if is_kept(run_date)}
                new[str(table.run_date)] = self._write(files, table)
            yield
            with client_errors(self.url):
                self._check_alone(files, old, new[str(table.run_date)]["files"])
                manifest = {"contract": _CONTRACT, "run_dates": dict(sorted(new.items()))}
                files.pipe_file(self._path(MANIFEST), to_json(manifest, indent=2).encode())
        finally:
            self._clean_up(files)

    def _check_types(self, files: Any, run_dates: _RunDates, table: PublishedTable) -> None:
        earlier = [run_date for run_date in run_dates if run_date < str(table.run_date)]
        parts = run_dates[max(earlier)]["files"] if earlier else []
        # An object that somebody has deleted is nothing to compare with.
        if parts and files.exists(self._path(parts[0])):
            with files.open(self._path(parts[0]), "rb", cache_type="readahead") as part:
                check_part_types(part_schema(part), table, self.layout, self)

    def _check_alone(self, files: Any, old: _RunDates, written: list[str]) -> None:
        """Raise StoreError if another run has replaced the manifest that was read, or deleted what was written."""
        if self._run_dates(files) != old or not set(written) <= set(self._list(files)):
            raise StoreError(
                f"{self.url}: another run publishes here at the same time; expected one. Run it again when the other "
                "has ended"
            )

    def _write(self, files: Any, table: PublishedTable) -> dict[str, Any]:
        """Write the parts of a run date, and return its entry in the manifest."""
        folder = f"run_date={table.run_date}"
        with open_rows(table, self.layout, is_dated=False) as rows:
            parts = write_parts(rows, table.metadata, lambda name: files.open(self._path(f"{folder}/{name}"), "wb"))
        return {
            "files": [f"{folder}/{name}" for name in parts],
            "rows": sum(parts.values()),
            "layout": self.layout,
            "run_id": table.run_id,
            "model_id": table.model_id,
            "sha256": table.sha256,
        }

    def _run_dates(self, files: Any) -> _RunDates:
        """Read the manifest: its entries by run date. Raises StoreError if it is not one of batchrec."""
        try:
            manifest = json.loads(files.cat_file(self._path(MANIFEST)))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StoreError(f"{self._path(MANIFEST)}: is not JSON: {one_line(error)}. Restore or delete it") from error
        if not isinstance(manifest, dict) or manifest.get("contract") != _CONTRACT:
            raise StoreError(f"{self._path(MANIFEST)}: is not a manifest of the version {_CONTRACT}. Move it away")
        run_dates = manifest.get("run_dates")
        # People delete old run dates in it.
        if not isinstance(run_dates, dict) or not all(map(_is_entry, run_dates.values())):
            raise StoreError(
                f"{self._path(MANIFEST)}: is damaged; expected run_dates, each with {', '.join(_ENTRY)}. Restore it"
            )
        return run_dates

    def _clean_up(self, files: Any) -> None:
        """Delete the parts that the manifest does not name: of an error in the block, or of replaced rows."""
        try:
            self._remove_unnamed(files)
        except Exception as error:
            _log.warning("%s: old parts are not deleted; the next run does it: %s", self.url, one_line(error))

    def _remove_unnamed(self, files: Any) -> None:
        paths = self._list(files)
        # After the list: another run may have published what it had written before.
        named = {path for entry in self._run_dates(files).values() for path in entry["files"]}
        for path in paths:
            if PART_PATH.fullmatch(path) and path not in named:
                # Not all at once: fsspec takes paths to delete for globs, and a folder may have a bracket in its name.
                files.rm_file(self._path(path))

    def _list(self, files: Any) -> list[str]:
        """List the objects of the folder, as paths within it."""
        root = self._path("")
        return [path.lstrip("/").removeprefix(root) for path in files.find(self.url.address)]

    def _path(self, name: str) -> str:
        """Return the path of an object within the folder: bucket and key."""
        return f"{self.url.key.rstrip('/')}/{name}"


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), type_) for key, type_ in _ENTRY.items())
