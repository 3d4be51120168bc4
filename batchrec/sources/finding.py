"""Find the files that paths, folders, globs and URLs name, and the files of a folder that are not read."""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from batchrec.errors import InputError
from batchrec.sources.formats import SUFFIXES
from batchrec.sources.input_files import InputFile
from batchrec.sources.object_store import ObjectStore, StoredObject
from batchrec.system.urls import is_url

# Name of a table format -> the file that marks its folders, and how to read its current rows. The data files of such a
# table also hold old versions of rows.
_TABLE_FORMATS = {
    "Delta Lake": ("_delta_log", "by a URL like {delta}, or with a query over delta_scan (--query, or a .sql file)"),
    "Apache Iceberg": (
        "metadata/*.metadata.json",
        "by a URL like iceberg://catalog/db.table, or with a query over iceberg_scan (--query, or a .sql file)",
    ),
    "Apache Hudi": (".hoodie", "with an engine that supports the format"),
}
_MARK = re.compile(r"^(.*)/(?:(_delta_log)/.*|metadata/[^/]*(\.metadata\.json)|(\.hoodie)/.*)$")


def find_files(paths: Sequence[str], option: str) -> list[InputFile | StoredObject]:
    """Return the files and objects that paths, folders, globs and URLs name, each once, sorted.

    Raises InputError if a path names no file, or if a file belongs to a Delta Lake, Iceberg or Hudi table; StoreError
    if an object store cannot be asked.
    """
    files = [file for path in paths if not is_url(path) for file in _files_of(path, option)]
    _refuse_table_formats(files)
    objects = {stored.url: stored for path in paths if is_url(path) for stored in _objects_of(path, option)}
    unique = sorted({file.resolve(): file for file in files}.values())
    return [*map(InputFile, unique), *(objects[url] for url in sorted(objects))]


def unread_files(paths: Iterable[str]) -> list[str]:
    """Return the files of folders that `find_files` skips: other suffixes, hidden data files, and links to folders.

    Private files of other tools are not listed: hidden names (leading dot or underscore) without a data suffix.
    """
    unread: list[str] = []
    for path in paths:
        if is_url(path):
            unread += _unread_objects(ObjectStore(path))
        elif path != "" and Path(path).is_dir():
            for file in sorted(Path(path).rglob("*")):
                is_shown = file.is_file() and _is_shown(file.relative_to(path).parts)
                if (file.is_symlink() and not file.is_file()) or (file.is_file() and _has_rows(file.name) != is_shown):
                    unread.append(str(file))
    return unread


def _files_of(path: str, option: str) -> list[Path]:
    try:
        if Path(path).is_file():
            return [Path(path)]
        # An empty path, for example from an unset shell variable, does not mean the current folder.
        is_folder = path != "" and Path(path).is_dir()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. Pass {option}") from error
    if is_folder:
        files = [
            file
            for file in Path(path).rglob("*")
            if _has_rows(file.name) and file.is_file() and _is_shown(file.relative_to(path).parts)
        ]
        expected = f"a folder with {', '.join(SUFFIXES)} files"
        _refuse_table_formats([Path(path) / "any file"])
    else:
        files = [Path(f) for f in glob.glob(path, recursive=True) if Path(f).is_file()]
        expected = f"a file, a folder or a glob. Pass {option}"
    if not files:
        raise InputError(f"{path}: no file found; expected {expected}")
    return files


def _objects_of(url: str, option: str) -> list[StoredObject]:
    store = ObjectStore(url)
    if store.is_object():
        names = [store.path]
    else:
        names = store.names()
        _refuse_marked(store, names)
        if not store.is_glob():
            names = [name for name in names if _has_rows(name) and _is_shown(_parts(store, name))]
    _refuse_objects_in_tables(store, names)
    if not names:
        raise InputError(
            f"{store.url}: no object found; expected an object, a folder with {', '.join(SUFFIXES)} objects, or a "
            f"glob. Pass {option}"
        )
    return [store.object(name) for name in names]


def _unread_objects(store: ObjectStore) -> Iterator[str]:
    if store.is_glob() or store.is_object():
        return
    for name in store.names():
        if _has_rows(name) != _is_shown(_parts(store, name)):
            yield store.object(name).url


def _parts(store: ObjectStore, name: str) -> tuple[str, ...]:
    return PurePosixPath(name.removeprefix(store.path).lstrip("/")).parts


def _has_rows(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_shown(parts: Sequence[str]) -> bool:
    # Other tools keep checkpoints, temporary files and transaction logs under hidden names.
    return not any(part.startswith((".", "_")) for part in parts)


def _refuse_table_formats(files: Iterable[Path]) -> None:
    for folder in sorted({parent for file in files for parent in file.absolute().parents}):
        for kind, (mark, _) in _TABLE_FORMATS.items():
            if any(folder.glob(mark)):
                raise _is_table(str(folder), kind, f"delta://{folder}")


def _refuse_marked(store: ObjectStore, names: Iterable[str]) -> None:
    """Raise InputError if an object of a folder marks a table."""
    for name in names:
        match = _MARK.match(name)
        if match:
            raise _is_table_of(store, match[1], list(_TABLE_FORMATS)[(match.lastindex or 2) - 2])


def _refuse_objects_in_tables(store: ObjectStore, names: Iterable[str]) -> None:
    """Raise InputError if a folder above the objects, or above the URL, is a table."""
    if store.url.scheme == "https":  # few servers list folders
        return
    # A partition's folder is no table, and there may be thousands of them.
    folders = {parent for name in [store.path, *names] for parent in store.parents(name)}
    for folder in sorted(folder for folder in folders if "=" not in folder and "*" not in folder):
        for kind, (mark, _) in _TABLE_FORMATS.items():
            if store.exists(f"{folder}/{mark}"):
                raise _is_table_of(store, folder, kind)


def _is_table_of(store: ObjectStore, folder: str, kind: str) -> InputError:
    url = store.object(folder).url
    return _is_table(url, kind, f"delta+{url}")


def _is_table(folder: str, kind: str, delta: str) -> InputError:
    advice = _TABLE_FORMATS[kind][1].format(delta=delta)
    return InputError(
        f"{folder}: is a table of {kind}; its files also hold old and deleted rows. Read its current rows {advice}, or "
        "pass an export of them"
    )
