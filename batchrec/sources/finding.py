"""Find the files that paths, folders and globs name, and the files of a folder that are not read."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchrec.errors import InputError
from batchrec.sources.formats import SUFFIXES

# Name of a table format -> the file that marks its folders, and how to read its current rows. The data files of such a
# table also hold old versions of rows.
_TABLE_FORMATS = {
    "Delta Lake": ("_delta_log", "with a query over delta_scan (--query, or a .sql file)"),
    "Apache Iceberg": ("metadata/*.metadata.json", "with a query over iceberg_scan (--query, or a .sql file)"),
    "Apache Hudi": (".hoodie", "with an engine that supports the format"),
}


def find_files(paths: Sequence[str], option: str) -> list[Path]:
    """Return the files that paths, folders and globs name, each once, sorted.

    Raises InputError if a path names no file, or if a file belongs to a Delta Lake, Iceberg or Hudi table.
    """
    files = [file for path in paths for file in _files_of(path, option)]
    _refuse_table_formats(files)
    return sorted({file.resolve(): file for file in files}.values())


def unread_files(paths: Iterable[str]) -> list[Path]:
    """Return the files of folders that `find_files` skips: other suffixes, hidden data files, and links to folders.

    Private files of other tools are not listed: hidden names (leading dot or underscore) without a data suffix.
    """
    unread = []
    for path in paths:
        if path == "" or not Path(path).is_dir():
            continue
        for file in sorted(Path(path).rglob("*")):
            is_data = file.name.lower().endswith(SUFFIXES)
            if (file.is_symlink() and not file.is_file()) or (file.is_file() and is_data != _is_shown(file, path)):
                unread.append(file)
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
        files = [f for f in Path(path).rglob("*") if f.name.lower().endswith(SUFFIXES) and _is_shown(f, path)]
        expected = f"a folder with {', '.join(SUFFIXES)} files"
        _refuse_table_formats([Path(path) / "any file"])
    else:
        files = [Path(f) for f in glob.glob(path, recursive=True) if Path(f).is_file()]
        expected = f"a file, a folder or a glob. Pass {option}"
    if not files:
        raise InputError(f"{path}: no file found; expected {expected}")
    return files


def _is_shown(file: Path, folder: str) -> bool:
    # Other tools keep checkpoints, temporary files and transaction logs under hidden names.
    return file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _refuse_table_formats(files: Iterable[Path]) -> None:
    for folder in sorted({parent for file in files for parent in file.absolute().parents}):
        for kind, (mark, advice) in _TABLE_FORMATS.items():
            if any(folder.glob(mark)):
                raise InputError(
                    f"{folder}: is a table of {kind}; its files also hold old and deleted rows. Read its current rows "
                    f"{advice}, or pass an export of them"
                )
