"""The metrics of a night as a file in Prometheus' text format, for node_exporter's textfile collector."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from batchrec.errors import BatchrecError, LockedError, StoreError
from batchrec.nightly.archive import Archive
from batchrec.nightly.report import NightReport
from batchrec.system.atomic import replacing

_log = logging.getLogger(__name__)

# Metrics of the archive, which hold whatever happened to the newest run.
_ARCHIVE_METRICS = {
    "batchrec_last_success_timestamp_seconds": "Time at which a night was last published.",
    "batchrec_newest_night_timestamp_seconds": "Run date of the newest published night, at 0:00 UTC.",
    "batchrec_out_is_newest": "Whether the current table is that of the newest published night.",
}

# The first line of the file begins with it.
METRICS_START = "# HELP batchrec_"


def write_metrics(file: Path, report: NightReport, exit_code: int, archive: Archive) -> None:
    """Write the metrics of a night, whether it was published or not, in one step.

    Raises ConfigError if the file cannot be written.
    """
    registry = _registry(_archive_metrics(archive), exit_code, datetime.fromisoformat(report.finished))

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"batchrec_{name}", text, labels, registry=registry)

    gauge("run_seconds", "Duration of the newest run.").set(report.seconds)
    seconds = gauge("stage_seconds", "Duration of a stage.", "stage")
    rows = gauge("stage_rows", "Rows that a stage read or wrote.", "stage")
    for name, stage_report in report.stages.items():
        seconds.labels(name).set(stage_report["seconds"])
        n_rows = stage_report.get("rows", stage_report.get("rows_read"))
        if n_rows is not None:
            rows.labels(name).set(n_rows)
    ndcg = gauge("ndcg_at_10", "NDCG@10 on held-out items.", "model")
    # Labelled by role: a model id would start a new series after every training.
    for stage, model in (("evaluate", "in_use"), ("evaluate-new", "new")):
        if stage in report.stages:
            ndcg.labels(model).set(report.stages[stage]["ndcg_at_10"])
            ndcg.labels("popularity").set(report.stages[stage]["popularity_ndcg_at_10"])
    value = gauge("gate_value", "A figure that a gate checks.", "gate", "figure")
    passed = gauge("gate_passed", "Whether the figure is within its bounds.", "gate", "figure")
    for check in report.checks:
        # In a stored report, a value that is not a number is null.
        figure = math.nan if check["value"] is None else check["value"]
        value.labels(check["gate"], check["figure"]).set(figure)
        passed.labels(check["gate"], check["figure"]).set(check["passed"])
    _write(file, registry)


def write_failure(file: Path, exit_code: int, archive: Archive | None = None) -> None:
    """Write that a run failed before its night began. If the file cannot be written, only log a warning.

    archive: None if its folder is not known yet; then the file keeps its metrics of the archive. A file that holds
    anything other than batchrec's metrics is not replaced.
    """
    try:
        former = file.read_text(encoding="utf-8") if file.is_file() else ""
        if file.exists() and not former.startswith(METRICS_START):
            _log.warning("%s: does not hold metrics of batchrec, so it is not replaced", file)
            return
        archive_metrics = _archive_metrics(archive) if archive is not None else _archive_metrics_in(former)
        _write(file, _registry(archive_metrics, exit_code, datetime.now(UTC)))
    except (BatchrecError, OSError, ValueError) as error:
        _log.warning("%s: cannot record that the run failed: %s", file, error)


@contextmanager
def reporting_failures(file: Path | None, archive: Archive | None = None) -> Iterator[None]:
    """Write to the metrics file if the block raises. If another run holds the lock, that run will write the file."""
    try:
        yield
    except LockedError:
        raise
    except Exception as error:
        if file is not None:
            write_failure(file, error.exit_code if isinstance(error, BatchrecError) else 1, archive)
        raise


def _archive_metrics(archive: Archive) -> dict[str, float]:
    """Return the metrics of the archive: name -> value."""
    dates = archive.dates()
    finished = [datetime.fromisoformat(report["finished"]).timestamp() for report in archive.reports(dates)]
    last_success, newest_night, out_is_newest = _ARCHIVE_METRICS
    metrics = {last_success: max(finished)} if finished else {}
    if dates:
        metrics[newest_night] = datetime.combine(dates[-1], datetime.min.time(), UTC).timestamp()
    try:
        is_newest = float(bool(dates) and dates[-1] in archive.current_nights())
    except StoreError as error:
        # The failure itself must reach the monitor.
        _log.warning("%s", error)
        is_newest = math.nan
    return metrics | {out_is_newest: is_newest}


def _archive_metrics_in(text: str) -> dict[str, float]:
    """Return the metrics of the archive that a metrics file holds."""
    families = text_string_to_metric_families(text)
    return {family.name: family.samples[0].value for family in families if family.name in _ARCHIVE_METRICS}


def _registry(archive_metrics: dict[str, float], exit_code: int, ended: datetime) -> CollectorRegistry:
    registry = CollectorRegistry()
    for name, value in archive_metrics.items():
        Gauge(name, _ARCHIVE_METRICS[name], registry=registry).set(value)
    Gauge("batchrec_last_run_timestamp_seconds", "Time at which the newest run ended.", registry=registry).set(
        ended.timestamp()
    )
    Gauge("batchrec_exit_code", "Exit code of the newest run.", registry=registry).set(exit_code)
    return registry


def _write(file: Path, registry: CollectorRegistry) -> None:
    with replacing(file) as temporary:
        temporary.write_bytes(generate_latest(registry))
