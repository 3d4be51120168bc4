"""The figures of a night as a file in Prometheus' text format, for node_exporter's textfile collector."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from batchrec.errors import BatchrecError, LockedError
from batchrec.nightly.archive import Archive
from batchrec.nightly.report import NightReport
from batchrec.system.atomic import replacing

_log = logging.getLogger(__name__)

# What is known of the nights, whatever has become of the newest run.
_STANDING = {
    "batchrec_last_success_timestamp_seconds": "When a night was published last.",
    "batchrec_newest_night_timestamp_seconds": "Run date of the newest night, at 0:00 UTC.",
    "batchrec_out_is_newest": "Whether the table that is out is that of the newest published night.",
}


def write_metrics(file: Path, report: NightReport, exit_code: int, archive: Archive) -> None:
    """Write the figures of a night, whether it was published or not, in one step.

    Raises ConfigError if the file cannot be written.
    """
    registry = _registry(_standing(archive), exit_code, datetime.fromisoformat(report.finished))

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"batchrec_{name}", text, labels, registry=registry)

    gauge("run_seconds", "How long the newest run took.").set(report.seconds)
    seconds = gauge("stage_seconds", "How long a stage took.", "stage")
    rows = gauge("stage_rows", "Rows that a stage read or wrote.", "stage")
    for name, found in report.stages.items():
        seconds.labels(name).set(found["seconds"])
        n_rows = found.get("rows", found.get("rows_read"))
        if n_rows is not None:
            rows.labels(name).set(n_rows)
    ndcg = gauge("ndcg_at_10", "NDCG@10 on held-out items.", "model")
    # By what it is: an id would be another series after every training.
    for stage, model in (("evaluate", "in_use"), ("evaluate-new", "new")):
        if stage in report.stages:
            ndcg.labels(model).set(report.stages[stage]["ndcg_at_10"])
            ndcg.labels("popularity").set(report.stages[stage]["popularity_ndcg_at_10"])
    value = gauge("gate_value", "A figure of a gate.", "gate", "figure")
    passed = gauge("gate_passed", "Whether it is within bounds.", "gate", "figure")
    for check in report.checks:
        # In a report that was kept, a value that is not a number is null.
        figure = math.nan if check["value"] is None else check["value"]
        value.labels(check["gate"], check["figure"]).set(figure)
        passed.labels(check["gate"], check["figure"]).set(check["passed"])
    _write(file, registry)


def write_failure(file: Path, exit_code: int, archive: Archive | None = None) -> None:
    """Write that a run has ended before its night began; if that cannot be done, only say so in the log.

    archive: None if it is not known where it is; then what the file says of them stays. A file that holds anything
    else than metrics of batchrec is left as it is.
    """
    try:
        former = file.read_text(encoding="utf-8") if file.is_file() else ""
        if file.exists() and not former.startswith("# HELP batchrec_"):
            _log.warning("%s: holds no metrics of batchrec, and is left as it is", file)
            return
        standing = _standing(archive) if archive is not None else _standing_in(former)
        _write(file, _registry(standing, exit_code, datetime.now(UTC)))
    except (BatchrecError, OSError, ValueError) as error:
        _log.warning("%s: does not say that the run has failed: %s", file, error)


@contextmanager
def reporting_failures(file: Path | None, archive: Archive | None = None) -> Iterator[None]:
    """Write to the metrics file if the block ends by an error; not if another run is at work, which will write it."""
    try:
        yield
    except LockedError:
        raise
    except Exception as error:
        if file is not None:
            write_failure(file, error.exit_code if isinstance(error, BatchrecError) else 1, archive)
        raise


def _standing(archive: Archive) -> dict[str, float]:
    """Return what is known of the nights: name of the metric -> value."""
    dates = archive.dates()
    finished = [datetime.fromisoformat(kept["finished"]).timestamp() for kept in archive.reports(dates)]
    last_success, newest_night, out_is_newest = _STANDING
    found = {last_success: max(finished)} if finished else {}
    if dates:
        found[newest_night] = datetime.combine(dates[-1], datetime.min.time(), UTC).timestamp()
    return found | {out_is_newest: float(bool(dates) and dates[-1] in archive.current_nights())}


def _standing_in(text: str) -> dict[str, float]:
    """Return what a metrics file says of the nights."""
    families = text_string_to_metric_families(text)
    return {family.name: family.samples[0].value for family in families if family.name in _STANDING}


def _registry(standing: dict[str, float], exit_code: int, ended: datetime) -> CollectorRegistry:
    registry = CollectorRegistry()
    for name, value in standing.items():
        Gauge(name, _STANDING[name], registry=registry).set(value)
    Gauge("batchrec_last_run_timestamp_seconds", "When the newest run ended.", registry=registry).set(ended.timestamp())
    Gauge("batchrec_exit_code", "Exit code of the newest run.", registry=registry).set(exit_code)
    return registry


def _write(file: Path, registry: CollectorRegistry) -> None:
    with replacing(file) as temporary:
        temporary.write_bytes(generate_latest(registry))
