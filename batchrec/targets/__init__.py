"""The places where recommendations are published: score's --out. A new target is added to `_BY_SCHEME`."""

from collections.abc import Callable
from pathlib import Path

from batchrec.config import Layout
from batchrec.errors import ConfigError
from batchrec.system.urls import Url, is_url
from batchrec.targets.delta import DeltaTarget
from batchrec.targets.iceberg import IcebergTarget
from batchrec.targets.local_file import LocalFile
from batchrec.targets.postgres import PostgresTarget
from batchrec.targets.target import PublishedTable, Target

__all__ = ["LocalFile", "PublishedTable", "Target", "local_path", "open_target"]

# Scheme -> the class of its targets. The package of a store is imported by the methods, not by the module.
_BY_SCHEME: dict[str, Callable[[Url, Layout], Target]] = {
    "delta": DeltaTarget,
    "delta+s3": DeltaTarget,
    "delta+gs": DeltaTarget,
    "delta+az": DeltaTarget,
    "iceberg": IcebergTarget,
    "postgresql": PostgresTarget,
}


def open_target(out: str, layout: Layout = "long") -> Target:
    """Return the target that score's --out names. Nothing is opened or written yet.

    Raises ConfigError for a URL that is incomplete or of an unknown scheme.
    """
    if not is_url(out):
        return LocalFile(Path(out), layout)
    url = Url.parse(out)
    if url.scheme not in _BY_SCHEME:
        schemes = ", ".join(f"{scheme}://" for scheme in _BY_SCHEME)
        raise ConfigError(f"{url}: no target for {url.scheme}:// is known; expected a file, {schemes}")
    return _BY_SCHEME[url.scheme](url, layout)


def local_path(out: str) -> Path | None:
    """Return the path of an --out in this machine's files; None for a URL."""
    return None if is_url(out) else Path(out)
