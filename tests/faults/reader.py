"""A reader that polls a shop all the time, and may see only the states before and after a night."""

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq

from batchrec.model.directory import load_model
from tests.faults import counts
from tests.faults.scenes import Scene
from tests.faults.shop import FIRST, Shop


@dataclass
class Reader:
    """A reader of a shop, and the faults that it has seen; allowed: the digests that a table may have, by its place."""

    shop: Shop
    allowed: dict[str, set[str | None]]
    models: set[str | None]
    wrong: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    n_polls: int = 0

    def poll(self) -> None:
        """Look at every table and at the model in use once."""
        self.n_polls += 1
        self._see_out()
        for night in self.shop.folder.glob("nights/run_date=*"):
            self._see_night(night)
        self._see_model()

    def _see_out(self) -> None:
        try:
            contents = (self.shop.folder / "recs.parquet").read_bytes()
        except FileNotFoundError:
            self._check("out", None)
            return
        self._check("out", self._digest(contents))

    def _see_night(self, night: Path) -> None:
        """Check the table and the report of a night, both read from the same folder even if it is being replaced."""
        with suppress(FileNotFoundError):
            opened = os.open(night, os.O_RDONLY)
            try:
                table = self._digest(self._read("recs.parquet", opened))
                report = json.loads(self._read("report.json", opened))
            except FileNotFoundError:
                # The opened folder may have been replaced or deleted since. If it was not, its files must be complete.
                if os.fstat(opened).st_nlink and night.exists() and os.path.samestat(os.fstat(opened), night.stat()):
                    self.wrong.append(f"{night.name} lacks a file")
                return
            finally:
                os.close(opened)
            self._check(night.name, table)
            if report["recs_sha256"] != table:
                self.wrong.append(f"{night.name}: the report is of another table")

    @staticmethod
    def _read(name: str, folder: int) -> bytes:
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
            return file.read()

    def _see_model(self) -> None:
        link = self.shop.folder / "models" / "current"
        if not link.is_symlink():
            if None not in self.models:
                self.wrong.append("no model is in use")
            return
        files = self._files_of(link)
        if files not in self.known:
            # Each model is loaded once, like each table.
            found = load_model(link).manifest.model_id
            if found not in self.models:
                self.wrong.append(f"model {found}")
            elif files and files == self._files_of(link):
                self.known.add(files)

    @staticmethod
    def _files_of(link: Path) -> str:
        """Return the digest of the files of a model; "" if it is being replaced."""
        try:
            return sha256(b"".join(file.read_bytes() for file in sorted(link.iterdir()))).hexdigest()
        except FileNotFoundError:
            return ""

    def _digest(self, contents: bytes) -> str:
        found = sha256(contents).hexdigest()
        if found not in self.known:
            # Each table is read once, to check that it can be read.
            pq.read_table(io.BytesIO(contents))
            self.known.add(found)
        return found

    def _check(self, where: str, found: str | None) -> None:
        if found not in self.allowed.get(where, set()):
            self.wrong.append(f"{where}: a table that is neither the old nor the new one: {found}")


def reader_of(shop: Shop, scene: Scene) -> Reader:
    """Return a reader that allows the states before and after a night."""
    nights = {*scene.before.tables, *scene.after.tables, FIRST}
    allowed: dict[str, set[str | None]] = {
        f"run_date={night}": {state.tables[night] for state in (scene.before, scene.after) if night in state.tables}
        for night in nights
    }
    models = {state.in_use and state.in_use[11:] for state in (scene.before, scene.after)}
    return Reader(shop, {"out": {scene.before.out, scene.after.out}, **allowed}, models)


@contextmanager
def polled(shop: Shop, scene: Scene) -> Iterator[Reader]:
    """Poll until the block ends; fail if the reader has seen a fault."""
    reader, is_over = reader_of(shop, scene), threading.Event()

    def poll() -> None:
        while not is_over.wait(0.002):
            try:
                reader.poll()
            except Exception as error:
                reader.wrong.append(repr(error))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield reader
    finally:
        is_over.set()
        thread.join()
        counts.add("polls of the reader", reader.n_polls)
    assert reader.wrong == []
