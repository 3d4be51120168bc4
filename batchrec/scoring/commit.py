"""commit: merge the shards that tasks have scored, and publish the table once."""

from pathlib import Path

from batchrec.config import PublishingConfig, ScoringConfig
from batchrec.scoring.merging import merge, open_shards
from batchrec.scoring.publish import publish_made
from batchrec.scoring.report import ScoringReport


def commit(shards: Path, out: str = "recs.parquet", publishing: PublishingConfig = PublishingConfig()) -> ScoringReport:
    """Merge the shards in a folder into the table that `score` without --shard makes, and publish it at `out`.

    Returns the report of all shards together; its seconds are those of the merge. The shards stay.
    Raises InputError if a shard is missing or damaged, if two differ in model, input, rules, options or run date, or if
    a user is missing or in a wrong shard; ConfigError or StoreError for a target that is a shard or cannot be written.
    """
    files = open_shards(shards)
    # Publishing needs no other options.
    config = ScoringConfig(run_date=files[0].same["run_date"], layout=publishing.layout)
    return publish_made(out, config, [file.path for file in files], lambda recs, _checkpoint_dir: merge(files, recs))
