"""score and commit to any target: the table is made in this machine's files, then published in one step."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path

from batchrec.config import ScoringConfig, Shard
from batchrec.errors import ConfigError
from batchrec.scoring.engine import Engine
from batchrec.scoring.inputs import input_files
from batchrec.scoring.processes import score_file
from batchrec.scoring.report import ScoringReport
from batchrec.system.atomic import check_no_input
from batchrec.system.disk import file_sha256
from batchrec.system.resume import open_checkpoint_dir
from batchrec.system.temporaries import temporary_folder
from batchrec.targets import LocalFile, PublishedTable, Target, local_path, open_target

_log = logging.getLogger(__name__)


def score_to(
    out: str, sequences: Path, model: Path, config: ScoringConfig, engine: Engine | None = None
) -> ScoringReport:
    """Score every user and publish the table at the target `out`. A run that was killed resumes when called again.

    With --shard only the file of the shard is written, into the folder `out`. engine: as for `score`.
    Raises the errors of `score`, and StoreError for a target that cannot be reached or written. Then the target holds
    what it held before.
    """

    def make(recs: Path, checkpoint_dir: Path | None) -> ScoringReport:
        return score_file(sequences, model, config, recs, checkpoint_dir, engine)

    if config.part:
        return _make_resumable(_shard_file(out, config.part), make)
    return publish_made(out, config, input_files(sequences, model, config), make)


def publish_made(
    out: str, config: ScoringConfig, inputs: Iterable[str | Path], make: Callable[[Path, Path | None], ScoringReport]
) -> ScoringReport:
    """Make a table as a local file and publish it at the target `out`.

    inputs: local files that the table must not replace. make: writes the file, with checkpoints in a folder or, if
    None, without.
    Raises what `make` raises, ConfigError if `out` is an input, and StoreError for a target that cannot be reached or
    written.
    """
    target = open_target(out, config.layout)
    if isinstance(target, LocalFile):
        check_no_input(target.file, inputs)
    if isinstance(target, LocalFile) and config.layout == "long":
        return _make_resumable(target.file, make)
    target.check_writable()
    staging = staging_path(out)
    # The checkpoints are kept until the table is published: a run that was killed while publishing needs them too.
    with open_checkpoint_dir(staging) as checkpoint_dir, temporary_folder(staging) as folder:
        recs = folder / "recs.parquet"
        report = replace(make(recs, checkpoint_dir), out=str(target))
        publish(recs, config.night, report.model_id, target)
    return report


def publish(finished: Path, run_date: date, model_id: str, target: Target) -> None:
    """Publish a finished table as the rows of a run date; model_id: of the model that made it."""
    table = PublishedTable(finished, run_date, file_sha256(finished), secrets.token_hex(6), model_id)
    with target.replacing(table):
        _log.info("%s: publishing the table of run %s", target, table.run_id)


def _make_resumable(recs: Path, make: Callable[[Path, Path | None], ScoringReport]) -> ScoringReport:
    with open_checkpoint_dir(recs) as checkpoint_dir:
        return make(recs, checkpoint_dir)


def _shard_file(out: str, shard: Shard) -> Path:
    """Return the file of a shard, after making its folder. Raises ConfigError if `out` cannot be a folder."""
    folder = local_path(out)
    if folder is None or folder.is_file():
        raise ConfigError(f"--out {out}: expected a folder for the files of --shard. batchrec commit publishes them")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError.of(error, folder) from error
    return folder / shard.file_name


def staging_path(out: str) -> Path:
    """Return a path in this folder next to which the table of a target is made: the same in every run."""
    return Path(f"batchrec-{sha256(out.encode()).hexdigest()[:12]}")
