"""Outputs that appear whole or not at all: files and folders are written beside their place, then renamed into it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from batchrec.errors import ConfigError
from batchrec.system.disk import exchange, put_on_disk
from batchrec.system.temporaries import modes_by_umask, probe_of, temporary_file, temporary_folder


def check_writable(out: Path, option: str = "--out") -> None:
    """Raise ConfigError where the file or folder `out` cannot be created, before any work is done."""
    probe = probe_of(out)
    try:
        out.exists()  # raises for a name that is too long
        has_folder = probe.parent.is_dir()
        if has_folder:
            probe.touch()
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}. Pass another {option}") from error
    if not has_folder:
        raise ConfigError(f"{out}: folder {out.parent} does not exist. Make it, or pass another {option}")


def check_no_input(out: Path, inputs: Iterable[str | Path], option: str = "--out") -> None:
    """Raise ConfigError where the file `out` is one of the inputs."""
    if out.resolve() in {Path(file).resolve() for file in inputs}:
        raise ConfigError(f"{out}: is also an input. Pass another {option}")


def check_writable_file(out: Path, option: str = "--out") -> None:
    """Raise ConfigError where the file `out` cannot be created, before any work is done."""
    check_writable(out, option)
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder; expected the name of a file. Pass another {option}")


@contextmanager
def replacing(out: Path, contents: Path | None = None) -> Iterator[Path]:
    """Yield a path beside `out` to write to, renamed to `out` if the block ends without an error.

    A reader of `out` sees the old file or the new one, never half of it, and the temporary one is for its owner alone.
    When the block has ended a power cut changes nothing of that. contents: a file that is put there instead.
    Raises ConfigError where it cannot be written.
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
def replacing_folder(out: Path, marked_by: Sequence[str]) -> Iterator[Path]:
    """Yield a new folder beside `out` to fill, which takes the place of `out` if the block ends without an error.

    It holds files alone. When the block has ended a power cut changes nothing of what is in the place of `out`.
    marked_by: the files by any of which a folder of the kind is known.
    Raises ConfigError where `out` cannot be written or is something other than such a folder.
    """
    check_writable(out)
    is_marked = any((out / name).is_file() for name in marked_by)
    if out.exists() and not is_marked and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and holds no {' or '.join(marked_by)}. Move it away, or pass another --out")
    try:
        _, mode = modes_by_umask(out)
        with temporary_folder(out) as temporary:
            yield temporary
            temporary.chmod(mode)
            put_on_disk([*temporary.iterdir(), temporary, temporary.parent])
            _replace_folder(temporary, Path(os.path.realpath(out)))
            # Before the files of the old folder go: their names must not come back without them.
            put_on_disk([temporary.parent])
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error


def _replace_folder(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`; what was there is left under the name of `new`."""
    if not old.exists():
        new.rename(old)
    elif not exchange(new, old):
        # Without an exchange there is a moment in which a reader finds no model; what was there is never lost.
        aside = new.with_suffix(".old")
        old.rename(aside)
        new.rename(old)
        aside.rename(new)
