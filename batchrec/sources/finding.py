"""Find the files that paths, folders, globs and URLs name, and the files of a folder that are not read."""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from batchrec.errors import InputError
from batchrec.sources.formats import SUFFIXES
from batchrec.sources.input_files import InputFile
from batchrec.sources.object_store import ObjectStore, StoredObject
from batchrec.system.urls import is_url
from batchrec.tables.queries import not_from_home

# Name of a table format -> the glob of what marks its folders, and how to read its current rows. The data files of such
# a table also hold old versions of rows.
_TABLE_FORMATS = {
    "Delta Lake": ("_delta_log", "by a URL like {delta}, or with a query over delta_scan (--query, or a .sql file)"),
    "Apache Iceberg": (
        "metadata/*.metadata.json*",
        "by a URL like iceberg://catalog/db.table, or with a query over iceberg_scan (--query, or a .sql file)",
    ),
    "Apache Hudi": (".hoodie*", "with an engine that supports the format"),
    "Apache Paimon": ("schema/schema-[0-9]*", "with an engine that supports the format"),
    "Apache Hive with transactions": (f"delta_{'[0-9]' * 7}_*", "with an engine that supports the format"),
}
# The name of an object in such a folder: the folder, then a group for each format.
_MARKS = "|".join(f"({re.escape(mark)})" for mark, _ in _TABLE_FORMATS.values())
_MARK = re.compile("(.*)/(?:" + _MARKS.replace(r"\*", "[^/]*").replace(r"\[0\-9\]", "[0-9]") + ")(?:/|$)")


@dataclass(frozen=True)
class Listing:
    """The files that paths and URLs name. files: to read, each once, sorted. unread: files of folders that are skipped.

    Files are skipped if they have another suffix or a hidden name (leading dot or underscore), and links to folders.
    Private files of other tools are not listed: hidden names without a suffix of data.
    """

    files: list[InputFile | StoredObject]
    unread: list[str]


def find_files(paths: Sequence[str], option: str) -> list[InputFile | StoredObject]:
    """Return the files to read of `list_files`, which see."""
    return list_files(paths, option).files


def list_files(paths: Sequence[str], option: str) -> Listing:
    """List the files and objects that paths, folders, globs and URLs name.

    Raises InputError if a path names no file, or if a file belongs to a Delta Lake, Iceberg, Hudi or Paimon table;
    StoreError if an object store cannot be asked.
    """
    listings = [_list_url(path, option) if is_url(path) else _list_path(path, option) for path in paths]
    files = {
        (file.url if isinstance(file, StoredObject) else str(file.path.resolve())): file
        for listing in listings
        for file in listing.files
    }
    _refuse_table_formats(file.path for file in files.values() if isinstance(file, InputFile))
    unique = sorted(files.values(), key=lambda file: (isinstance(file, StoredObject), str(file)))
    return Listing(unique, [name for listing in listings for name in listing.unread])


def _list_path(path: str, option: str) -> Listing:
    try:
        if Path(path).is_file():
            return Listing([_input_file(Path(path))], [])
        # An empty path, for example from an unset shell variable, does not mean the current folder.
        is_folder = path != "" and Path(path).is_dir()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. Pass {option}") from error
    unread: list[str] = []
    if is_folder:
        files = []
        for file in sorted(Path(path).rglob("*")):
            is_shown = file.is_file() and _is_shown(file.relative_to(path).parts)
            if is_shown and _has_rows(file.name):
                files.append(file)
            elif (file.is_symlink() and not file.is_file()) or (file.is_file() and _has_rows(file.name) != is_shown):
                unread.append(str(file))
        expected = f"a folder with {', '.join(SUFFIXES)} files"
        _refuse_table_formats([Path(path) / "any file"])
    else:
        files = [Path(f) for f in glob.glob(path, recursive=True) if Path(f).is_file()]
        expected = f"a file, a folder or a glob. Pass {option}"
    if not files:
        if path and not is_folder and Path(path).exists():
            raise InputError(f"{path}: is a pipe, a device or a socket; expected a file. Save it as a file first")
        others = _of_other_names(path) if is_folder else ""
        raise InputError(f"{path}: no file found; expected {expected}{others}")
    return Listing(list(map(_input_file, files)), unread)


def _of_other_names(folder: str) -> str:
    """Return the end of an error on a folder of which no file is read: a file of another name, and how to read it."""
    files = (file for file in sorted(Path(folder).rglob("*")) if file.is_file() and file.stat().st_size > 0)
    other = next((file for file in files if _is_shown(file.relative_to(folder).parts)), None)
    if other is None:
        return ""
    return (
        f"; found {other.name!r}. Pass a glob to read files of other names: '{Path(glob.escape(folder)) / '**' / '*'}'"
    )


def _input_file(path: Path) -> InputFile:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path)!r}: the name has bytes that are not UTF-8. Rename the file or folder") from error
    # By the path that DuckDB returns with each row.
    return InputFile(not_from_home(path))


def _list_url(url: str, option: str) -> Listing:
    store = ObjectStore(url)
    unread: list[str] = []
    if store.is_object():
        names = [store.path]
    else:
        names = store.names()
        _refuse_marked(store, names)
        if not store.is_glob():
            is_shown = {name: _is_shown(_parts(store, name)) for name in names}
            unread = [store.object(name).url for name in names if _has_rows(name) != is_shown[name]]
            names = [name for name in names if _has_rows(name) and is_shown[name]]
    _refuse_objects_in_tables(store, names)
    if not names:
        raise InputError(
            f"{store.url}: no object found; expected an object, a folder with {', '.join(SUFFIXES)} objects, or a "
            f"glob. Pass {option}"
        )
    return Listing([store.object(name) for name in names], unread)


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
    # All below a folder has been listed. A partition's folder is not a table, and there may be thousands of them.
    below = names if store.is_glob() else []
    folders = {parent for name in [store.path, *below] for parent in store.parents(name)}
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
