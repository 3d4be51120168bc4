"""score and commit to any target: the table is made in this machine's files, then published in one step."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from batchrec.config import ScoringConfig, Shard
from batchrec.errors import ConfigError
from batchrec.scoring.processes import score_file
from batchrec.scoring.report import ScoringReport
from batchrec.system.disk import file_sha256
from batchrec.system.resume import open_checkpoint_dir
from batchrec.targets import LocalFile, PublishedTable, Target, local_path, open_target


def score_to(out: str, sequences: Path, model: Path, config: ScoringConfig) -> ScoringReport:
    """Score every user and publish the table at the target `out`. A run that was killed resumes when called again.

    With config.shard, the shard is a file of the folder `out`, which is made if need be.
    Raises the errors of `score`, and StoreError for a target that cannot be reached or written. Then the target holds
    what it held before.
    """
    if config.part is not None:
        return _score_file(sequences, model, config, _shard_file(out, config.part))
    return publish_made(out, config, lambda recs: _score_file(sequences, model, config, recs))


def publish_made(out: str, config: ScoringConfig, make: Callable[[Path], ScoringReport]) -> ScoringReport:
    """Make a table as a local file and publish it at the target `out`; make: writes the file.

    Raises what `make` raises, and StoreError for a target that cannot be reached or written.
    """
    target = open_target(out)
    if isinstance(target, LocalFile):
        return make(target.file)
    target.check_writable()
    recs = _staging_file(out)
    try:
        report = make(recs)
        publish(recs, report, config, target)
    finally:
        recs.unlink(missing_ok=True)
    return replace(report, out=str(target))


def publish(recs: Path, report: ScoringReport, config: ScoringConfig, target: Target) -> None:
    """Publish a finished table as the rows of the config's run date."""
    table = PublishedTable(recs, config.night, file_sha256(recs), secrets.token_hex(8), report.model_id)
    with target.replacing(table):
        pass


def _score_file(sequences: Path, model: Path, config: ScoringConfig, out: Path) -> ScoringReport:
    with open_checkpoint_dir(out) as checkpoint_dir:
        return score_file(sequences, model, config, out, checkpoint_dir)


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


def _staging_file(out: str) -> Path:
    """Return the local file in which the table of a target is made: in this folder, the same in every run."""
    return Path(f".batchrec-{sha256(out.encode()).hexdigest()[:12]}.parquet")
