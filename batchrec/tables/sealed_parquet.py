"""Parquet files in which a changed bit is detected: checksums protect the pages, a seal protects the whole file.

A page's checksum covers neither its header nor the footer, and DuckDB does not verify checksums. The seal in the
footer's metadata is the SHA-256 of the file with zeros in place of the seal.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import InputError, one_line

_KEY = "batchrec.seal"
_ZEROS = b"0" * 64
# In Thrift's compact protocol these two bytes announce a text of 64 bytes.
_MARK = _KEY.encode() + b"\x18\x40"
# The metadata come after the row groups, and the seal comes last among the metadata.
_TAIL_BYTES = 1 << 16
_READ_BYTES = 1 << 20


class _Summed(FileIO):
    """A new file that hashes what is written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.sum = sha256()

    def write(self, part: Any) -> int:
        self.sum.update(part)
        rest = memoryview(part).cast("B")
        n_bytes = len(rest)
        while len(rest):
            rest = rest[super().write(rest) :]
        return n_bytes


@contextmanager
def sealed_writer(path: Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of a Parquet file, and seal the file if the block ends without an error; options: pyarrow's."""
    # Pass an open file, because pyarrow takes a name with a colon for a URI.
    with _Summed(path) as file:
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True, **options) as writer:
            yield writer
            writer.add_key_value_metadata({_KEY: _ZEROS.decode()})
        seal = file.sum.hexdigest().encode()
    with pa.OSFile(os.fspath(path)) as written:
        place, _ = _find_seal(written)
    with path.open("r+b") as unsealed:
        unsealed.seek(place)
        unsealed.write(seal)


def open_parquet(path: Path) -> pa.NativeFile:
    """Open a Parquet file for `parquet_of`, which reads this file even if another one takes its name.

    Raises OSError if it cannot be opened, is not a file, or has changed since it was sealed. Files of other programs
    have no seal and are not verified.
    """
    # Opening a pipe would block until another process writes to it.
    if path.exists() and not path.is_file():
        raise OSError("is not a file")
    file = pa.OSFile(os.fspath(path))
    place, seal = _find_seal(file)
    if place and seal != _sum_without(file, place):
        raise OSError("is not the file that was written: its SHA-256 has changed")
    return file


def schema_in(path: Path) -> pa.Schema | None:
    """Return the schema of a Parquet file; None for a file that is not Parquet.

    Raises InputError if it cannot be opened, or has changed since it was sealed.
    """
    try:
        return parquet_of(open_parquet(path)).schema_arrow
    except pa.ArrowException:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}. Restore it, or make it again") from error


def digest_of(file: pa.NativeFile) -> str:
    """Return a digest of a file from `open_parquet`: its seal, or the SHA-256 of its bytes if it has none."""
    _, seal = _find_seal(file)
    return seal.decode() if seal else _sum_without(file, file.size()).decode()


def parquet_of(file: pa.NativeFile, **options: Any) -> pq.ParquetFile:
    """Return a reader of a file from `open_parquet` that verifies the checksums of pages; options: pyarrow's.

    Raises ArrowException or OSError if the file is not Parquet.
    """
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True, **options)
        # Some names are decoded only on access.
        table.schema_arrow.to_string()
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"a name in the schema is not UTF-8: {error.object!r:.60}") from error
    return table


def _find_seal(file: pa.NativeFile) -> tuple[int, bytes]:
    """Return the position of the seal in a file, and the seal; 0 and empty if the file has none."""
    start = max(0, file.size() - _TAIL_BYTES)
    tail = file.read_at(file.size() - start, start)
    mark = tail.rfind(_MARK)
    if mark < 0:
        return 0, b""
    place = mark + len(_MARK)
    return start + place, tail[place : place + len(_ZEROS)]


def _sum_without(file: pa.NativeFile, place: int) -> bytes:
    """Return the SHA-256, as text, of a file with zeros in place of its seal."""
    summed, end = sha256(), place + len(_ZEROS)
    for start, stop in ((0, place), (end, file.size())):
        for at in range(start, stop, _READ_BYTES):
            if at == end:
                summed.update(_ZEROS)
            summed.update(file.read_at(min(_READ_BYTES, stop - at), at))
    return summed.hexdigest().encode()
