"""The places where recommendations are published: score's --out. A new target is added to `_BY_SCHEME`."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from batchrec.config import TargetLayout
from batchrec.errors import ConfigError
from batchrec.system.urls import Url, is_url
from batchrec.targets.delta import DeltaTarget
from batchrec.targets.duckdb_table import DuckdbTable
from batchrec.targets.iceberg import IcebergTarget
from batchrec.targets.local_file import LocalFile
from batchrec.targets.local_folder import LocalFolder
from batchrec.targets.postgres import PostgresTarget
from batchrec.targets.store_folder import StoreFolder
from batchrec.targets.store_object import StoreObject
from batchrec.targets.target import PublishedTable, Target

__all__ = ["LocalFile", "LocalFolder", "PublishedTable", "Target", "check_tables", "local_path", "open_target"]


def _in_store(url: Url, layout: TargetLayout) -> Target:
    """Return the folder or the object of an object store that a URL names."""
    url.check_parameters(set())
    if url.address.endswith("/"):
        return StoreFolder(url, layout)
    if url.address.endswith(".parquet"):
        return StoreObject(url, layout)
    raise ConfigError(f"{url}: expected a folder, which ends with /, or an object that ends with .parquet")


# Scheme -> what makes its targets. The package of a store is imported by their methods, not by their modules.
_BY_SCHEME: dict[str, Callable[[Url, TargetLayout], Target]] = {
    "az": _in_store,
    "delta": DeltaTarget,
    "delta+az": DeltaTarget,
    "delta+gs": DeltaTarget,
    "delta+s3": DeltaTarget,
    "duckdb": DuckdbTable,
    "gs": _in_store,
    "iceberg": IcebergTarget,
    "memory": _in_store,
    "postgresql": PostgresTarget,
    "s3": _in_store,
}


def open_target(out: str, layout: TargetLayout = "long") -> Target:
    """Return the target that score's --out names. Nothing is opened or written yet.

    Raises ConfigError for a URL that is incomplete or of an unknown scheme.
    """
    if not is_url(out):
        is_folder = out.endswith(("/", os.sep)) or LocalFolder.is_at(Path(out))
        return LocalFolder(Path(out), layout) if is_folder else LocalFile(Path(out), layout)
    url = Url.parse(out)
    if url.scheme not in _BY_SCHEME:
        schemes = ", ".join(f"{scheme}://" for scheme in _BY_SCHEME)
        raise ConfigError(f"{url}: no target for {url.scheme}:// is known; expected a file, {schemes}")
    return _BY_SCHEME[url.scheme](url, layout)


def check_tables(tables: Iterable[tuple[Target, PublishedTable]]) -> None:
    """Raise ConfigError if a target cannot take its table, because it holds rows with other columns or types."""
    for target, table in tables:
        target.check_table(table)


def local_path(out: str) -> Path | None:
    """Return the path of an --out in this machine's files; None for a URL."""
    return None if is_url(out) else Path(out)
