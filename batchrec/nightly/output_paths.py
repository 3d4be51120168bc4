"""A night must not write where it reads: the next night would read the last night's table as events."""

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from batchrec.config import RunConfig
from batchrec.errors import ConfigError
from batchrec.nightly.jobs import Jobs
from batchrec.nightly.prometheus import METRICS_START
from batchrec.sources import local_path_of
from batchrec.system.urls import Url, is_url
from batchrec.targets import LocalFolder, local_path, open_target

_NIGHT = (
    "run_date=2026-11-24/recs.parquet",
    "run_date=2026-11-24/sequences.parquet",
    "run_date=2026-11-24/sequences.rejects.csv",
)
_MODEL = ("2026-11-24-c0777c7fd0c5/items.parquet",)
# A file of a target that is a folder.
_PART = "run_date=2026-11-24/part-c0777c7f-00000.parquet"


def check_output_paths(jobs: Jobs, config: RunConfig) -> None:
    """Raise ConfigError if a file, folder, glob or URL that a night reads includes, or would include, what it writes.

    Also if a table and the archive or models share a folder, or if both tables do.
    """
    inputs = list(_inputs(jobs, config))
    outs = _outs(jobs, config)
    for option, out in outs.items():
        _check_out_url(option, out, inputs)
    if config.similar and _overlap(_place(jobs.out), _place(jobs.similar_out)):
        raise ConfigError(
            f"{jobs.similar_out}: is also score --out, or one is within the other. Pass another similar --out"
        )
    nights, models = Path(config.nights), Path(config.models)
    written = [
        ("--nights", nights, [nights / name for name in _NIGHT]),
        ("--models", models, [models / name for name in _MODEL]),
    ]
    for option, out in outs.items():
        target, path = open_target(out), local_path(out)
        if path is not None:
            is_folder = isinstance(target, LocalFolder)
            if is_folder and os.path.realpath(path) in {os.path.realpath(nights), os.path.realpath(models)}:
                raise ConfigError(f"{target}: is also the folder of --nights or --models. Pass another {option}")
            written.insert(0, (option, path, [path / _PART if is_folder else path]))
    for option, path, files in written:
        for read in inputs:
            if any(_is_read(file, read) for file in files):
                where = "" if Path(read).is_file() else f", outside {read}"
                raise ConfigError(f"{path}: is also an input. Pass another {option}{where}")


def _outs(jobs: Jobs, config: RunConfig) -> dict[str, str]:
    """Return where a night publishes its tables: option -> target."""
    return {"score --out": jobs.out} | ({"similar --out": jobs.similar_out} if config.similar else {})


def _place(out: str) -> tuple[str, dict[str, str]]:
    """Return the address of a target, and the parameters of its URL."""
    if not is_url(out):
        return os.path.realpath(out), {}
    url = Url.parse(out)
    return url.address.rstrip("/"), url.parameters


def _overlap(one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]]) -> bool:
    """Return whether two places are the same, or one is within the folder of the other."""
    if one[0] == other[0]:
        return one == other
    shorter, longer = sorted((one[0], other[0]), key=len)
    return longer.startswith(f"{shorter}/")


def _check_out_url(option: str, out: str, inputs: Sequence[str]) -> None:
    """Raise ConfigError if the URL of an --out is also an input, or lies within one."""
    if not is_url(out):
        return
    for read in inputs:
        if is_url(read) and _is_read_by_url(Url.parse(out), Url.parse(read)):
            raise ConfigError(f"{Url.parse(out)}: is also an input. Pass another {option}, outside {Url.parse(read)}")


def _is_read_by_url(out: Url, read: Url) -> bool:
    written, source = out.address.rstrip("/"), read.address.rstrip("/")
    if out.parameters or read.parameters:
        return (written, out.parameters) == (source, read.parameters)
    if glob.has_magic(source):
        return any(_matches(file.split("/"), source.split("/")) for file in (written, f"{written}/{_PART}"))
    return written == source or (written.startswith(f"{source}/") and _has_no_hidden(written[len(source) :].split("/")))


def check_metrics_path(jobs: Jobs, config: RunConfig, metrics_file: Path | None) -> None:
    """Raise ConfigError if a night reads, or would read, the metrics file, or writes a table to it.

    Also if the file holds anything other than metrics of batchrec, such as batchrec.toml.
    """
    # In a folder, files are read by their suffix, and a metrics file's is not a table's.
    files_read = [read for read in [*_outs(jobs, config).values(), *_inputs(jobs, config)] if not Path(read).is_dir()]
    if metrics_file is not None and any(_is_read(metrics_file, read) for read in files_read):
        raise ConfigError(f"{metrics_file}: is also an input. Pass another --metrics-file")
    if metrics_file is not None and metrics_file.is_file():
        with metrics_file.open("rb") as opened:
            start = opened.read(len(METRICS_START))
        if start not in {b"", METRICS_START.encode()}:
            raise ConfigError(f"{metrics_file}: does not hold metrics of batchrec. Pass another --metrics-file")


def _inputs(jobs: Jobs, config: RunConfig) -> Iterator[str]:
    """Yield the files, folders, globs and URLs that a night reads."""
    yield from jobs.ratings if jobs.sequences.query is None else [str(jobs.sequences.query)]
    yield from (file for _, file in jobs.files(config))


def _is_read(file: Path, read: str) -> bool:
    """Return whether a path, folder or glob includes a file, which need not exist yet."""
    read = local_path_of(read)
    if not read or is_url(read):
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
    return _has_no_hidden(file.relative_to(folder).parts)


def _has_no_hidden(parts: Sequence[str]) -> bool:
    return not any(part.startswith((".", "_")) for part in parts)


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
