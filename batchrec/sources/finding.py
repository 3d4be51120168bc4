"""Which files the paths, folders and globs of an option name, and which of a folder are not read."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchrec.errors import InputError

_SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst", ".parquet")

# What marks a folder as a table whose files are versions of rows rather than rows, and what reads its current rows.
_TABLE_FORMATS = {
    "Delta Lake": ("_delta_log", "by a query over delta_scan (--query, or a .sql file)"),
    "Apache Iceberg": ("metadata/*.metadata.json", "by a query over iceberg_scan (--query, or a .sql file)"),
    "Apache Hudi": (".hoodie", "through an engine that knows the format"),
}


def find_files(paths: Sequence[str], option: str) -> list[Path]:
    """List the files that paths, folders and globs name, each once, in order.

    Raises InputError if a path names no file, or files of a Delta Lake, Iceberg or Hudi table.
    """
    found = [file for path in paths for file in _files_of(path, option)]
    _refuse_table_formats(found)
    return sorted({file.resolve(): file for file in found}.values())


def unread_files(paths: Iterable[str]) -> list[Path]:
    """List the files of folders that `find_files` leaves out: by suffix, hidden data files, and links to folders.

    What other tools keep for themselves is not listed: names with a leading dot or underscore that are no data files.
    """
    unread = []
    for path in paths:
        if path == "" or not Path(path).is_dir():
            continue
        for file in sorted(Path(path).rglob("*")):
            is_data = file.name.lower().endswith(_SUFFIXES)
            if (file.is_symlink() and not file.is_file()) or (file.is_file() and is_data != _is_shown(file, path)):
                unread.append(file)
    return unread


def _files_of(path: str, option: str) -> list[Path]:
    try:
        if Path(path).is_file():
            return [Path(path)]
        # An empty path, such as an unset variable of a shell, is not the current folder.
        is_folder = path != "" and Path(path).is_dir()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. Pass {option}") from error
    if is_folder:
        files = [f for f in Path(path).rglob("*") if f.name.lower().endswith(_SUFFIXES) and _is_shown(f, path)]
        expected = f"a folder with {', '.join(_SUFFIXES)} files"
        _refuse_table_formats([Path(path) / "any file"])
    else:
        files = [Path(f) for f in glob.glob(path, recursive=True) if Path(f).is_file()]
        expected = f"a file, a folder or a glob. Pass {option}"
    if not files:
        raise InputError(f"{path}: no file found; expected {expected}")
    return files


def _is_shown(file: Path, folder: str) -> bool:
    # Other tools keep checkpoints, temporary files and transaction logs under such names.
    return file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _refuse_table_formats(files: Iterable[Path]) -> None:
    for folder in sorted({parent for file in files for parent in file.absolute().parents}):
        for kind, (mark, way) in _TABLE_FORMATS.items():
            if any(folder.glob(mark)):
                raise InputError(
                    f"{folder}: is a table of {kind}, whose files hold old and deleted rows too. Read its current rows "
                    f"{way}, or pass an export of them"
                )
