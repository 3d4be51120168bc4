"""Outputs that appear whole or not at all.

An output is written to a temporary file or folder next to its place (temporaries.py), forced to the disk (disk.py),
and then moved to its place by one rename. A target other than a local file belongs in targets/.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchrec.errors import ConfigError
from batchrec.system.disk import exchange, put_on_disk
from batchrec.system.temporaries import modes_by_umask, probe_path, temporary_file, temporary_folder


@dataclass(frozen=True)
class FileKind:
    """A kind of output: its name for messages, the suffix of its files and their first bytes."""

    name: str
    suffix: str
    start: bytes


TABLE = FileKind("a Parquet table", ".parquet", b"PAR1")
PAGE = FileKind("a page", ".html", b"<!doctype html>")


def check_writable(out: Path, option: str = "--out") -> None:
    """Raise ConfigError if the file or folder `out` cannot be created. To be called before any work is done."""
    probe = probe_path(out)
    try:
        # DuckDB and Arrow take names in UTF-8 only.
        str(out).encode()
        out.exists()  # raises if the name is too long
        has_folder = probe.parent.is_dir()
        if has_folder:
            probe.touch()
            probe.unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{str(out)!r}: the name has bytes that are not UTF-8. Pass another {option}") from error
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}. Pass another {option}") from error
    if not has_folder:
        # A link may lead into another folder.
        folder = probe.parent if out.is_symlink() else out.parent
        raise ConfigError(f"{out}: folder {folder} does not exist. Create it, or pass another {option}")


def check_no_input(out: Path, inputs: Iterable[str | Path], option: str = "--out") -> None:
    """Raise ConfigError if the file `out` is one of the inputs."""
    # Unlike Path.resolve, realpath accepts a link to itself, which the reader of an input refuses by name.
    if os.path.realpath(out) in {os.path.realpath(file) for file in inputs}:
        raise ConfigError(f"{out}: is also an input. Pass another {option}")


def check_writable_file(out: Path, option: str = "--out", kind: FileKind | None = None) -> None:
    """Raise ConfigError if the file `out` cannot be created. To be called before any work is done.

    kind: that of the new file. A file that by its name and its first bytes is of another kind is not replaced.
    """
    check_writable(out, option)
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder; expected the name of a file. Pass another {option}")
    if out.exists() and not out.is_file():
        # A rename would replace it: root would take /dev/null from the whole machine.
        raise ConfigError(f"{out}: is a device, a pipe or a socket; expected the name of a file. Pass another {option}")
    # By its name a damaged one is of the kind too.
    if kind is not None and out.suffix != kind.suffix and out.exists():
        with out.open("rb") as opened:
            start = opened.read(len(kind.start))
        if start not in {b"", kind.start}:
            raise ConfigError(f"{out}: holds something other than {kind.name}. Pass another {option}, or remove it")


def check_output_file(out: Path, inputs: Iterable[str | Path], kind: FileKind | None = TABLE) -> None:
    """Raise ConfigError if the file `out` is one of the inputs, or as `check_writable_file`; kind: as there."""
    check_no_input(out, inputs)
    check_writable_file(out, kind=kind)


@contextmanager
def replacing(out: Path, contents: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path next to `out`, which is renamed to `out` if the block ends without an error.

    A reader of `out` sees the old file or the new one, never a part of it, also after a power cut. Until the rename
    only the owner can read the new file. contents: a file to link or copy to the temporary path first.
    Raises ConfigError if `out` cannot be written.
    """
    check_writable_file(out)
    try:
        mode, _ = modes_by_umask(out)
        with temporary_file(out, contents) as temporary:
            yield temporary
            temporary.chmod(mode)
            put_on_disk([temporary, temporary.parent])
            temporary.replace(os.path.realpath(out))
            put_on_disk([temporary.parent])
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing_folder(out: Path, marked_by: Sequence[str], holds: Collection[str] | None = None) -> Iterator[Path]:
    """Yield a new folder next to `out`, which replaces `out` if the block ends without an error.

    The block puts only files into it. After the block a power cut cannot undo or tear the replacement.
    marked_by: file names; only a folder that holds one of them, or nothing, is replaced. holds: all names that it may
    hold, apart from hidden ones; None for any, if nobody else writes there.
    Raises ConfigError if `out` cannot be written or is something else than such a folder.
    """
    check_writable(out)
    is_marked = any((out / name).is_file() for name in marked_by)
    if out.exists() and not is_marked and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and holds no {' or '.join(marked_by)}. Move it away, or pass another --out")
    if holds is not None and out.is_dir():
        names = [path.name for path in out.iterdir()]
        others = sorted(name for name in names if name not in holds and not name.startswith("."))
        if others:
            raise ConfigError(f"{out}: holds {others[0]}, which would be lost. Move it away, or pass another --out")
    try:
        _, mode = modes_by_umask(out)
        with temporary_folder(out) as temporary:
            yield temporary
            temporary.chmod(mode)
            put_on_disk([*temporary.iterdir(), temporary, temporary.parent])
            switch_folder(temporary, Path(os.path.realpath(out)))
            # Before the files of the old folder are deleted: a power cut must not bring it back without them.
            put_on_disk([temporary.parent])
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error


def switch_folder(new: Path, old: Path) -> None:
    """Move `new` to the place of `old` in one step; the old folder is left under the name of `new`."""
    if not old.exists():
        new.rename(old)
    elif not exchange(new, old):
        # Without an exchange a reader finds no folder for a short time; the old one is never lost.
        aside = new.with_suffix(".old")
        old.rename(aside)
        new.rename(old)
        aside.rename(new)
