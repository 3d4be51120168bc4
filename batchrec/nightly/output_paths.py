"""A night must not write where it reads: the next night would read the last night's table as events."""

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from batchrec.config import RunConfig
from batchrec.errors import ConfigError
from batchrec.nightly.night import Jobs
from batchrec.sources import local_path_of
from batchrec.targets import local_path

_NIGHT = ("run_date=2026-11-24/recs.parquet", "run_date=2026-11-24/sequences.rejects.csv")
_MODEL = ("2026-11-24-c0777c7fd0c5/items.parquet",)


def check_output_paths(jobs: Jobs, config: RunConfig) -> None:
    """Raise ConfigError if a file, folder or glob that a night reads includes, or would include, a file it writes."""
    out = local_path(jobs.out)
    written = [
        *([] if out is None else [("score --out", out, [out])]),
        ("--nights", Path(config.nights), [Path(config.nights, name) for name in _NIGHT]),
        ("--models", Path(config.models), [Path(config.models, name) for name in _MODEL]),
    ]
    inputs = list(_inputs(jobs))
    for option, path, files in written:
        for read in inputs:
            if any(_is_read(file, read) for file in files):
                where = "" if Path(read).is_file() else f", outside {read}"
                raise ConfigError(f"{path}: is also an input. Pass another {option}{where}")


def check_metrics_path(jobs: Jobs, metrics_file: Path | None) -> None:
    """Raise ConfigError if a night reads, or would read, the metrics file, or writes its table to it."""
    # In a folder, files are read by their suffix, and a metrics file's is not a table's.
    files_read = [read for read in [jobs.out, *_inputs(jobs)] if not Path(read).is_dir()]
    if metrics_file is not None and any(_is_read(metrics_file, read) for read in files_read):
        raise ConfigError(f"{metrics_file}: is also an input. Pass another --metrics-file")


def _inputs(jobs: Jobs) -> Iterator[str]:
    """Yield the files, folders, globs and URLs that a night reads."""
    yield from map(local_path_of, jobs.ratings if jobs.sequences.query is None else [str(jobs.sequences.query)])
    yield from map(local_path_of, jobs.scoring.files.values())


def _is_read(file: Path, read: str) -> bool:
    """Return whether a path, folder or glob includes a file, which need not exist yet."""
    if not read:
        return False
    target = Path(os.path.realpath(file))
    # An existing file of that name takes precedence over a pattern, as in find_files.
    if os.path.lexists(read) or not glob.has_magic(read):
        source = Path(os.path.realpath(read))
        return target == source or (source.is_dir() and source in target.parents and _is_shown(target, source))
    parts = (Path.cwd() / read).parts
    n_plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    folder = Path(os.path.realpath(Path(*parts[:n_plain])))
    return folder in target.parents and _matches(target.relative_to(folder).parts, parts[n_plain:])


def _is_shown(file: Path, folder: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob, by the rules of the glob module."""
    if not patterns:
        return not parts
    is_hidden = bool(parts) and parts[0].startswith(".")
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or (bool(parts) and not is_hidden and _matches(parts[1:], patterns))
    return (
        bool(parts)
        and (not is_hidden or patterns[0].startswith("."))
        and fnmatchcase(parts[0], patterns[0])
        and _matches(parts[1:], patterns[1:])
    )
