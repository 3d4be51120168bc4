"""The evaluation report as text: the question, who was tested, one row per method, and verdicts."""

from collections.abc import Iterator

from batchrec.evaluation.report import EvaluationReport, MethodResult
from batchrec.model.metrics import decimals
from batchrec.system.terminal import format_table

_METRICS = {"ndcg": "NDCG", "hit_rate": "HR", "recall": "recall", "mrr": "MRR"}


def format_report(report: EvaluationReport) -> str:
    """Format the report as text: a head, a table with 95 % intervals, and a verdict per pair of interest."""
    return "\n".join([*_head(report), "", _table(report), "", *report.verdicts]).rstrip()


def _head(report: EvaluationReport) -> Iterator[str]:
    cut = "" if report.cut is None else f", test from {report.cut}"
    yield f"{report.protocol}{cut}, {'items of the history too' if report.keep_seen else 'new items only'}"
    yield report.question
    kept = "" if report.model is None else f", epoch {report.model.best_epoch} of {report.model.epochs} kept"
    yield (
        f"trained on {report.training_events:,} events of {report.training_users:,} users with "
        f"{report.training_items:,} items{kept}"
    )
    if report.model is not None and report.model.blend:
        gains = (f"{name} {gain:+.3f}" for name, gain in report.model.blend_ndcg_gains.items() if gain)
        yield f"blend, and the gain of each signal in validation: {', '.join(gains)}"
        shares = (f"{part} {share:.0%}" for part, share in report.model.blend_shares.items() if share)
        yield f"top 10 in validation, carried by: {', '.join(shares)}"
    unknown = f", {report.unknown_test_items:,} of them unknown in training" if report.unknown_test_items else ""
    yield f"{report.users_tested:,} users tested on {report.test_items:,} items{unknown}"
    left_out = [f"{n:,} ({reason})" for reason, n in report.users_not_tested.items()]
    if left_out:
        yield f"users not tested: {', '.join(left_out)}"


def _table(report: EvaluationReport) -> str:
    heads = [f"{name}@{report.k}" for name in _METRICS.values()]
    columns = ["mean [95 % interval]", *heads, "coverage", "mean popularity rank"]
    return format_table(columns, [_cells(result) for result in report.methods], range(1, len(columns)))


def _cells(result: MethodResult) -> list[str]:
    intervals = [
        f"{decimals(getattr(result, metric))} [{decimals(getattr(result, f'{metric}_low'))}, "
        f"{decimals(getattr(result, f'{metric}_high'))}]"
        for metric in _METRICS
    ]
    rank = result.mean_popularity_rank
    return [result.method, *intervals, f"{result.coverage:.1%}", "none" if rank is None else f"{rank:,.1f}"]
