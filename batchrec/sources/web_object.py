"""An object of a web server, read from its start, because a server need not know ranges, and known to be whole."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batchrec.errors import StoreError
from batchrec.sources.compressed import compression_of_start

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_log = logging.getLogger(__name__)

# Bytes are taken as they are sent: aiohttp unpacks them by itself, but misses the end of a gzip stream that is cut off.
_OPTIONS: dict[str, Any] = {
    "block_size": 0,
    "headers": {"Accept-Encoding": "identity"},
    "auto_decompress": False,
    # Otherwise the connection of a refused request is left open, and aiohttp reports that after the error.
    "raise_for_status": True,
}
# A compressed file is read to its checksum.
_ENCODINGS = {"", "identity", "gzip", "x-gzip"}


def web_blocks(files: "AbstractFileSystem", url: str, size: int) -> Iterator[bytes]:
    """Yield an object in blocks of up to `size` bytes; url: the name by which the file system knows it.

    Raises EOFError if it ends early, StoreError if the server sends a part of it or in an unknown encoding, and the
    errors of aiohttp. Warns if its end cannot be checked.
    """
    with files.open(url, "rb", **_OPTIONS) as opened:
        headers = opened.r.headers
        encoding = headers.get("Content-Encoding", "").lower()
        if opened.r.status != 200:
            raise StoreError(f"{url}: the server answers {opened.r.status}; expected 200, and the whole object")
        if encoding not in _ENCODINGS:
            raise StoreError(f"{url}: the server sends it as {encoding!r}; expected plain bytes or gzip")
        start, n_read = b"", 0
        while block := opened.read(size):
            start = start or block
            n_read += len(block)
            yield block
    # In every other case aiohttp, or a reader of compressed files, knows the end.
    if "gzip" not in encoding and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        n_bytes = files.info(url)["size"]
        if n_bytes is not None and n_read < n_bytes:
            raise EOFError("the object ended early")
        if n_bytes is None and compression_of_start(start) == "none" and not start.startswith(b"PAR1"):
            _log.warning(
                "%s: the server does not say how long it is, so a copy that was cut off would not be noticed. Have it "
                "sent with its length, or compressed as .gz",
                url,
            )
