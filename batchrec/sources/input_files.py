"""Files that are read: on this machine's disk, or objects of a store, which are copied into a spool first.

The path of a copy spells the URL of its object, so that every text that names the copy can name the object instead.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

# A disk's longest name of a file is 255 bytes; the key of an object can have 1,024.
_LONGEST_NAME = 200
_SPOOLED = re.compile(r"""(?<![^\s"'=(])/[^"'\n]*?/batchrec-objects/([\w.~%/-]+?)\.object""", re.ASCII)


@dataclass(frozen=True, order=True)
class InputFile:
    """A file on the disk. Its text names it in messages: its path or, if it is a copy of an object, the URL."""

    path: Path

    def __str__(self) -> str:
        return with_urls(str(self.path))

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        return self.path.open("rb")


def spooled_as(url: str, spool: Path) -> InputFile:
    """Return the file of a spool folder that holds the copy of an object."""
    name = quote(url, safe="")
    parts = [name[start : start + _LONGEST_NAME] for start in range(0, len(name), _LONGEST_NAME)]
    return InputFile(spool.absolute().joinpath("batchrec-objects", *parts[:-1], f"{parts[-1]}.object"))


def with_urls(text: str) -> str:
    """Return a text with URLs in place of the paths of copies."""
    return _SPOOLED.sub(lambda match: unquote(match[1].replace("/", "")), text)
