"""What a monitor reads of a night: a file in Prometheus' text format, for node_exporter's textfile collector."""

from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from batchrec.nightly.nights import Nights
from batchrec.nightly.report import NightReport
from batchrec.tables import replacing


def write_metrics(file: Path, report: NightReport, exit_code: int, nights: Nights) -> None:
    """Write the figures of a night, whether it was published or not, in one step.

    Raises ConfigError where the file cannot be written.
    """
    registry = CollectorRegistry()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"batchrec_{name}", text, labels, registry=registry)

    dates = nights.dates()
    finished = [datetime.fromisoformat(kept["finished"]).timestamp() for kept in nights.reports(dates)]
    if finished:
        gauge("last_success_timestamp_seconds", "When a night was published last.").set(max(finished))
    if dates:
        newest = datetime.combine(dates[-1], datetime.min.time(), UTC)
        gauge("newest_night_timestamp_seconds", "Run date of the newest night, at 0:00 UTC.").set(newest.timestamp())
    gauge("last_run_timestamp_seconds", "When the newest run ended.").set(
        datetime.fromisoformat(report.finished).timestamp()
    )
    gauge("exit_code", "Exit code of the newest run.").set(exit_code)
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
        value.labels(check["gate"], check["figure"]).set(check["value"])
        passed.labels(check["gate"], check["figure"]).set(check["passed"])
    with replacing(file) as temporary:
        temporary.write_bytes(generate_latest(registry))
