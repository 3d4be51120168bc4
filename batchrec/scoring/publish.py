"""score to any target: the table is made in this machine's files, then published in one step."""

import logging
import secrets
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from batchrec.config import ScoringConfig
from batchrec.scoring.score import ScoringReport, score
from batchrec.system.disk import file_sha256
from batchrec.system.resume import open_checkpoint_dir
from batchrec.system.temporaries import temporary_folder
from batchrec.targets import LocalFile, PublishedTable, Target, open_target

_log = logging.getLogger(__name__)


def score_to(out: str, sequences: Path, model: Path, config: ScoringConfig) -> ScoringReport:
    """Score every user and publish the table at the target `out`. A run that was killed resumes when called again.

    Raises the errors of `score`, and StoreError for a target that cannot be reached or written. Then the target holds
    what it held before.
    """
    target = open_target(out, config.layout)
    if isinstance(target, LocalFile) and config.layout == "long":
        with open_checkpoint_dir(target.file) as checkpoint_dir:
            return score(sequences, model, config, target.file, checkpoint_dir)
    target.check_writable()
    staging = _staging_path(out)
    # The checkpoints are kept until the table is published: a run that was killed while publishing needs them too.
    with open_checkpoint_dir(staging) as checkpoint_dir, temporary_folder(staging) as folder:
        recs = folder / "recs.parquet"
        report = replace(score(sequences, model, config, recs, checkpoint_dir), out=str(target))
        publish(recs, report, config, target)
    return report


def publish(recs: Path, report: ScoringReport, config: ScoringConfig, target: Target) -> None:
    """Publish a finished table as the rows of the config's run date."""
    table = PublishedTable(recs, config.night, file_sha256(recs), secrets.token_hex(6), report.model_id)
    with target.replacing(table):
        _log.info("%s: publishing the table of run %s", target, table.run_id)


def _staging_path(out: str) -> Path:
    """Return a path in this folder next to which the table of a target is made: the same in every run."""
    return Path(f"batchrec-{sha256(out.encode()).hexdigest()[:12]}")
