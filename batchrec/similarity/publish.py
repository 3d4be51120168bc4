"""similar and publish to any target: the table is made in this machine's files, then published in one step."""

from dataclasses import replace
from pathlib import Path

from batchrec.config import SimilarConfig
from batchrec.scoring.publish import publish, staging_path
from batchrec.similarity.similar import SimilarReport, similar
from batchrec.system.temporaries import temporary_folder
from batchrec.targets import LocalFile, open_target


def similar_to(out: str, model: Path, config: SimilarConfig) -> SimilarReport:
    """Find the similar items of every item of a model, and publish the table at the target `out`.

    Raises the errors of `similar`, and StoreError for a target that cannot be reached or written. Then the target holds
    what it held before.
    """
    target = open_target(out, "similar")
    if isinstance(target, LocalFile):
        return similar(model, config, target.file)
    target.check_writable()
    with temporary_folder(staging_path(out)) as folder:
        report = similar(model, config, folder / "similar.parquet")
        publish(folder / "similar.parquet", config.night, report.model_id, target)
    return replace(report, out=str(target))
