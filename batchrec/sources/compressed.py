"""Open files whether they are compressed or not."""

import gzip
import io
import zlib
from codecs import BOM_UTF8
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from batchrec.errors import InputError
from batchrec.sources.input_files import InputFile

# pzstd starts with a frame that holds sizes only.
_COMPRESSIONS = {"gzip": (b"\x1f\x8b",), "zstd": (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")}

_BLOCK = 1 << 20
# An archive of tar has its mark behind the name and the rights of its first file.
_HEAD = 512
# A file of blanks only is shorter.
_SHORT = 1 << 12
# Errors of reading a damaged compressed file, in addition to OSError.
DAMAGE_ERRORS = (EOFError, zlib.error, pa.ArrowException)

Compression = Literal["none", "gzip", "zstd"]


def first_bytes(file: InputFile) -> bytes:
    """Return enough bytes to recognise the format of a file."""
    try:
        with file.open() as opened:
            return opened.read(_HEAD)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def first_bytes_within(file: InputFile, start: bytes) -> bytes:
    """Return the first bytes of a file's contents, decompressed; none if it is damaged. start: those of the file."""
    if not start.startswith((*_COMPRESSIONS["gzip"], *_COMPRESSIONS["zstd"])):
        return start
    try:
        with open_bytes(file) as opened:
            return opened.read(_HEAD)
    except (*DAMAGE_ERRORS, OSError):
        # The reader of its format says what is wrong.
        return b""


def is_empty(file: InputFile) -> bool:
    """Return whether a file holds nothing, or only blanks, also if compressed.

    Programs that write in parts compress a part without rows too. A file that cannot be read is not empty.
    """
    try:
        with open_bytes(file) as opened:
            start = opened.read(_SHORT)
    except (*DAMAGE_ERRORS, OSError):
        # The reader of its format says what is wrong.
        return False
    return len(start) < _SHORT and not start.removeprefix(BOM_UTF8).strip()


def open_bytes(file: InputFile) -> BinaryIO:
    """Open a file; if it is compressed, its decompressed contents are read."""
    compression = compression_of(file)
    if compression == "gzip":
        return cast(BinaryIO, gzip.open(file.path))
    raw = file.open()
    if compression == "zstd":
        return cast(
            BinaryIO, io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(pa.PythonFile(raw), "zstd")))
        )
    return raw


def check_whole(file: InputFile) -> None:
    """Read a compressed file to its end, because DuckDB does not verify gzip's checksum and flipped bits change rows.

    Raises InputError if the file is damaged or truncated.
    """
    try:
        with open_bytes(file) as opened:
            while opened.read(_BLOCK):
                pass
    except (*DAMAGE_ERRORS, OSError) as error:
        raise InputError(
            f"{file}: is damaged or cut off: {error}. Download it again, or decompress the part that is intact"
        ) from error


def open_text(file: InputFile, encoding: str = "utf-8-sig") -> io.TextIOWrapper:
    """Open a text file, compressed or not. Bytes that are not UTF-8 are reported later, by DuckDB's scan."""
    return io.TextIOWrapper(open_bytes(file), encoding=encoding, errors="replace", newline="")


def compression_of(file: InputFile) -> Compression:
    """Return the compression of a file, by its first bytes."""
    return compression_of_start(first_bytes(file))


def compression_of_start(start: bytes) -> Compression:
    """Return the compression of a file that begins with these bytes."""
    if start.startswith(_COMPRESSIONS["gzip"]):
        return "gzip"
    return "zstd" if start.startswith(_COMPRESSIONS["zstd"]) else "none"
