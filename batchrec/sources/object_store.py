"""Objects of a store, such as S3: find those that a URL names, and copy them to the disk."""

import errno
import io
import logging
import posixpath
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

import duckdb

from batchrec.errors import BatchrecError, ConfigError, StoreError, one_line
from batchrec.sources.input_files import InputFile, spooled_as
from batchrec.sources.parquet_format import unwanted_ranges
from batchrec.sources.stores import TABLE_SOURCES
from batchrec.sources.web_object import web_blocks
from batchrec.system.urls import OBJECT_STORES, Url, file_system
from batchrec.tables.queries import spill_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_log = logging.getLogger(__name__)

# The longer a request, the less its start matters; each of the copies in progress holds one block in memory.
_BLOCK = 4 << 20
_COPIES_AT_ONCE = 8
# The packages of the stores repeat requests themselves, except for https; then a copy starts again.
_ATTEMPTS = 3


@dataclass(frozen=True)
class StoredObject:
    """An object of a store. Its text is its URL. name: the name by which the file system knows it."""

    url: str
    name: str
    store: "ObjectStore"

    def __str__(self) -> str:
        return self.url

    def copy(self, file: Path, columns: Collection[str], stopped: Event) -> None:
        """Copy the object to a file; of Parquet only the columns, the rest of the file is left as holes.

        columns: names, in lower case. A copy ends early if `stopped` is set.
        Raises StoreError if the object cannot be read, ConfigError if the file cannot be written.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._copy(file, columns, stopped)
            except StoreError as error:
                if attempt == _ATTEMPTS or not _is_transient(error.__cause__):
                    raise
                _log.warning("%s; trying again", error)
                stopped.wait(attempt)
            else:
                return

    def _copy(self, file: Path, columns: Collection[str], stopped: Event) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as copy:
                for start, block in self._blocks(file, columns):
                    if stopped.is_set():
                        return
                    copy.seek(start)
                    copy.write(block)
                    copy.flush()
        # An error of the store is a StoreError.
        except OSError as error:
            folder = str(file).partition("/batchrec-objects/")[0]
            raise ConfigError(
                f"{folder}: cannot hold the copy of {self}: {error.strerror or error}. Make room there"
            ) from error

    def _blocks(self, file: Path, columns: Collection[str]) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes to copy, block by block, with their places. Each is written before the next is asked for."""
        if self.store.url.scheme == "https":
            start = 0
            with self.store.errors(self.url):
                for block in web_blocks(self.store.files, self.name, _BLOCK):
                    yield start, block
                    start += len(block)
            return
        with self.store.errors(self.url), self.store.files.open(self.name, "rb", cache_type="none") as opened:
            size = opened.seek(0, io.SEEK_END)
            footer = _start_of_footer(opened, size)
            yield from _read(opened, size if footer is None else footer, size)
            start, end = 0, size if footer is None else footer
            for unwanted in unwanted_ranges(file, columns) if footer is not None else []:
                if start <= unwanted.start and unwanted.stop <= end:
                    yield from _read(opened, start, unwanted.start)
                    start = unwanted.stop
            yield from _read(opened, start, end)


class ObjectStore:
    """The store of a URL, such as a bucket of S3. Errors name the URL, and never hold credentials."""

    def __init__(self, text: str) -> None:
        """Connect to the store. Raises ConfigError for a URL of another kind, or with parameters."""
        self.url = Url.parse(text)
        if self.url.scheme not in OBJECT_STORES:
            schemes = ", ".join(f"{scheme}://" for scheme in sorted([*OBJECT_STORES, *TABLE_SOURCES]))
            raise ConfigError(
                f"{self.url.place}: no source for {self.url.scheme}:// is known; expected a file, {schemes}"
            )
        if self.url.parameters or "?" in text:
            raise ConfigError(
                f"{self.url.address}: has parameters, which may be credentials; expected none. Credentials are read "
                "from the usual places, such as the environment"
            )

    @cached_property
    def files(self) -> "AbstractFileSystem":
        """The file system of the store."""
        return file_system(self.url)

    @cached_property
    def path(self) -> str:
        """The URL as the file system spells it, without a slash at the end."""
        return str(self.files._strip_protocol(self.url.address)).rstrip("/")

    def object(self, name: str) -> StoredObject:
        """Return an object of the store by its name."""
        is_whole = name.startswith(f"{self.url.scheme}://")
        return StoredObject(name if is_whole else f"{self.url.scheme}://{name.lstrip('/')}", name, self)

    def is_object(self) -> bool:
        """Return whether the URL names one object. Raises StoreError if the store cannot be asked."""
        if self.url.address.endswith("/"):
            return False
        with self.errors(str(self.url)):
            try:
                return bool(self.files.info(self.path)["type"] == "file")
            except FileNotFoundError as error:
                # For a web server, fsspec reports every failure like this.
                cause = error.__cause__
                if self.url.scheme == "https" and cause is not None and getattr(cause, "status", None) != 404:
                    raise cause from None
                return False

    def is_glob(self) -> bool:
        """Return whether the URL is a pattern."""
        return any(character in self.url.address for character in "*[")

    def names(self) -> list[str]:
        """Return the names of the objects below the URL, or that match it if it is a glob, sorted.

        Raises StoreError if the store cannot be asked, or the bucket does not exist.
        """
        with self.errors(str(self.url)):
            search: Callable[..., dict[str, Any]] = self.files.glob if self.is_glob() else self.files.find
            listed = search(self.path, detail=True)
            if not listed and self.url.scheme != "https":
                # Who may list only a folder may not ask for the bucket.
                with suppress(PermissionError):
                    self.files.info(self.bucket)
        # Some tools make an empty object for a folder.
        return sorted(name for name, info in listed.items() if info["type"] == "file" and not name.endswith("/"))

    @property
    def bucket(self) -> str:
        """Name of the bucket, or the container."""
        start = len(self.path) - len(self.path.lstrip("/"))
        return self.path[: start + len(self.path[start:].partition("/")[0])]

    def exists(self, pattern: str) -> bool:
        """Return whether an object or folder exists that matches a glob; False if this may not be asked."""
        with self.errors(str(self.url)):
            try:
                return bool(self.files.glob(pattern))
            except (FileNotFoundError, PermissionError):
                return False

    def parents(self, name: str) -> Iterator[str]:
        """Yield the folders above a name, up to the bucket."""
        while name.strip("/") != self.bucket.strip("/") and posixpath.dirname(name) not in ("", name):
            name = posixpath.dirname(name)
            yield name

    @contextmanager
    def errors(self, url: str) -> Iterator[None]:
        """Raise StoreError for an error of the block, which only calls the file system."""
        try:
            yield
        except BatchrecError:
            raise
        except FileNotFoundError as error:
            raise StoreError(f"{url}: the object, or its bucket, does not exist") from error
        except PermissionError as error:
            raise StoreError(f"{url}: access is denied: {one_line(error)}. Check the credentials") from error
        # The packages of the stores, their clients and their HTTP libraries each have errors of their own.
        except Exception as error:
            text = one_line(error) or type(error).__name__
            raise StoreError(f"{url}: cannot be read: {text}") from error


def fetch(
    con: duckdb.DuckDBPyConnection, files: Collection[InputFile | StoredObject], columns: Collection[str]
) -> list[InputFile]:
    """Copy the objects among files to the folder into which the connection spills, which is removed with it.

    columns: names, in any case; of Parquet files, only these and small other ones are copied.
    Raises StoreError if an object cannot be read, ConfigError if the disk is full.
    """
    spool = spill_folder(con)
    copies = {file: spooled_as(file.url, spool) for file in files if isinstance(file, StoredObject)}
    wanted = {name.lower() for name in columns}
    stopped = Event()
    with ThreadPoolExecutor(_COPIES_AT_ONCE, "copy") as pool:
        try:
            list(pool.map(lambda pair: pair[0].copy(pair[1].path, wanted, stopped), copies.items()))
        except BaseException:
            stopped.set()
            raise
    return [copies[file] if isinstance(file, StoredObject) else file for file in files]


def _start_of_footer(opened: BinaryIO, size: int) -> int | None:
    """Return the place of a Parquet file's footer; None for another file."""
    opened.seek(max(0, size - 8))
    tail = opened.read(8)
    start = size - 8 - int.from_bytes(tail[:4], "little")
    return start if tail[4:] == b"PAR1" and start > 0 else None


def _read(opened: BinaryIO, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes from start to end, block by block, with their places."""
    opened.seek(start)
    for place in range(start, end, _BLOCK):
        size = min(_BLOCK, end - place)
        block = opened.read(size)
        if len(block) != size:
            raise EOFError("the object ended early")
        yield place, block


def _is_transient(error: BaseException | None) -> bool:
    """Return whether a second try could succeed, by the cause of a StoreError; None if the server's answer is unusable.

    It could not if the object is missing, denied or replaced meanwhile.
    """
    is_final = error is None or isinstance(error, FileNotFoundError | PermissionError | NotImplementedError)
    return not is_final and getattr(error, "errno", None) != errno.EBUSY
