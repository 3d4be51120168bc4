"""The benchmark report as text: what was run, one row per stage, and how stages scale."""

from collections.abc import Iterator

from batchrec.benchmark.bench import BenchReport, Growth, Stage
from batchrec.system.terminal import format_table


def format_report(report: BenchReport) -> str:
    """Format the report as text."""
    return "\n".join([*_head(report), "", _stages(report.stages), "", *map(_growth, report.growth), _share(report)])


def _head(report: BenchReport) -> Iterator[str]:
    encoder = report.encoder
    yield f"{report.ratings:,} ratings of {report.users:,} users and {report.items:,} items"
    yield (
        f"top {report.top_k}, histories filtered, {encoder['n_layers']} blocks, {encoder['hidden_size']} hidden, "
        f"{encoder['n_heads']} heads, {encoder['max_len']} items, {report.precision} on {report.device}"
    )
    if report.scored_users < report.users:
        yield f"{report.scored_users:,} of the users are scored"
    yield f"{report.cores} cores, median of {report.repeats}"


def _stages(stages: list[Stage]) -> str:
    columns = ("stage", "seconds", "per second", "peak", "times the limit", "limit")
    return format_table(columns, [_cells(stage) for stage in stages], range(1, 5))


def _cells(stage: Stage) -> tuple[str, ...]:
    return (
        stage.name,
        f"{stage.seconds:,.1f}",
        f"{stage.n / stage.seconds:,.0f} {stage.unit}",
        f"{stage.peak_mib:,.0f} MiB",
        f"{stage.ratio:.2f}",
        f"{stage.limit_seconds:,.1f} s: {stage.limit}",
    )


def _growth(growth: Growth) -> str:
    steps = ", ".join(
        f"{n:,}: {seconds:,.1f} s, {peak:,.0f} MiB"
        for n, seconds, peak in zip(growth.users, growth.seconds, growth.peak_mib, strict=True)
    )
    return f"{growth.name} by users: {steps}; time grows as users^{growth.exponent:.2f}"


def _share(report: BenchReport) -> str:
    (ratio,) = (stage.ratio for stage in report.stages if stage.name == "score")
    way = "the maxima of groups" if report.has_groups else "TopK alone"
    return (
        f"score takes the top {report.top_k} by {way}, and reaches {1 / ratio:.0%} of the speed that its limit allows"
    )
