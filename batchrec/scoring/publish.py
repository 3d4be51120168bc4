"""score to any target: the table is made in this machine's files, then published in one step."""

import secrets
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from batchrec.config import ScoringConfig
from batchrec.scoring.engine import Engine
from batchrec.scoring.score import ScoringReport, score
from batchrec.system.disk import file_sha256
from batchrec.system.resume import open_checkpoint_dir
from batchrec.targets import LocalFile, PublishedTable, Target, open_target


def score_to(
    out: str, sequences: Path, model: Path, config: ScoringConfig, engine: Engine | None = None
) -> ScoringReport:
    """Score every user and publish the table at the target `out`. A run that was killed resumes when called again.

    engine: as for `score`.
    Raises the errors of `score`, and StoreError for a target that cannot be reached or written. Then the target holds
    what it held before.
    """
    target = open_target(out)
    if isinstance(target, LocalFile):
        return _score_file(sequences, model, config, target.file, engine)
    target.check_writable()
    recs = _staging_file(out)
    try:
        report = _score_file(sequences, model, config, recs, engine)
        publish(recs, report, config, target)
    finally:
        recs.unlink(missing_ok=True)
    return replace(report, out=str(target))


def publish(recs: Path, report: ScoringReport, config: ScoringConfig, target: Target) -> None:
    """Publish a finished table as the rows of the config's run date."""
    table = PublishedTable(recs, config.night, file_sha256(recs), secrets.token_hex(8), report.model_id)
    with target.replacing(table):
        pass


def _score_file(sequences: Path, model: Path, config: ScoringConfig, out: Path, engine: Engine | None) -> ScoringReport:
    with open_checkpoint_dir(out) as checkpoint_dir:
        return score(sequences, model, config, out, checkpoint_dir, engine)


def _staging_file(out: str) -> Path:
    """Return the local file in which the table of a target is made: in this folder, the same in every run."""
    return Path(f".batchrec-{sha256(out.encode()).hexdigest()[:12]}.parquet")
