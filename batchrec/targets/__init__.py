"""The places where recommendations are published: score's --out. A new target is added to `open_target`."""

from pathlib import Path

from batchrec.errors import ConfigError
from batchrec.system.urls import Url, is_url
from batchrec.targets.local_file import LocalFile
from batchrec.targets.target import PublishedTable, Target

__all__ = ["LocalFile", "PublishedTable", "Target", "local_path", "open_target"]


def open_target(out: str) -> Target:
    """Return the target that score's --out names. Nothing is opened or written yet.

    Raises ConfigError for a URL that is incomplete or of an unknown scheme.
    """
    if not is_url(out):
        return LocalFile(Path(out))
    url = Url.parse(out)
    raise ConfigError(f"{url}: no target for {url.scheme}:// is known; expected a file. Pass another --out")


def local_path(out: str) -> Path | None:
    """Return the path of an --out in this machine's files; None for a URL."""
    return None if is_url(out) else Path(out)
