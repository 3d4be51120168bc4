"""The sections on the run itself: what ran, its gates, and the trend of the last nights."""

from collections.abc import Callable, Sequence
from typing import Any

from batchrec.report_page.blocks import Badge, Block, Cell, Chart, Charts, Facts, MissingError, Note, Table
from batchrec.report_page.charts import Point, bars, lines
from batchrec.report_page.night_files import NightFiles

NIGHT_COLUMNS = (
    "Night",
    "Seconds",
    "Users",
    "Rows",
    "NDCG@10",
    "Popularity NDCG@10",
    "Items recommended",
    "Overlap",
    "Trained",
)


def summary(files: NightFiles) -> list[Block]:
    """Return what ran, for how long, and whether it was published; failed gates first."""
    report = files.report
    blocks: list[Block] = []
    if report["failed"] is not None:
        blocks.append(Note(f"Not published: {report['failed']}", is_alarm=True))
        failed = [check for check in report["checks"] if not check["passed"]]
        if failed:
            blocks.append(_gates_table("Failed gates", failed))
    facts: list[tuple[str, Cell]] = [
        ("Run date", report["run_date"]),
        ("Run id", report["run_id"]),
        ("Started", _time(report["started"])),
        ("Finished", _time(report["finished"])),
        ("Duration", _duration(report["seconds"])),
        ("Resumed an interrupted run", "yes" if report["resumed"] else "no"),
        ("Trained", f"yes: {report['trained_because']}" if report["trained_because"] else "no"),
        ("Users with a list", report["users"]),
        ("Recommendations", report["rows"]),
        ("Users carried over from the last night", report["users_carried_over"]),
    ]
    blocks.append(Facts(facts))
    seconds = [Point(name, stage["seconds"]) for name, stage in files.stages.items()]
    if seconds:
        blocks.append(Charts([bars("Seconds per stage", seconds, ",.2~f")]))
    return blocks


def gates(files: NightFiles) -> list[Block]:
    """Return every figure that a gate checked, with its bounds."""
    checks = files.report["checks"]
    if not checks:
        raise MissingError("The night ended before its first gate.")
    return [_gates_table("Figures that the gates checked", checks)]


def _gates_table(caption: str, checks: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            check["figure"],
            check["gate"],
            check["value"],
            check["minimum"],
            check["maximum"],
            Badge("passed", True) if check["passed"] else Badge("failed", False),
        ]
        for check in checks
    ]
    return Table(caption, ["Figure", "Gate", "Value", "Minimum", "Maximum", "Result"], rows)


def trend(files: NightFiles) -> list[Block]:
    """Return charts of the last nights' figures, tonight's last."""
    if not files.earlier:
        return [Note("No trend yet: no report of an earlier night is kept.")]
    reports = [*files.earlier, files.report]
    share = ".2~%"
    drawn = [
        _trend_chart(reports, "Duration", ("seconds", "~s"), lambda report: report["seconds"]),
        _trend_chart(reports, "Users with a list", ("users", "~s"), lambda report: report["users"]),
        _trend_chart(reports, "Recommendations", ("rows", "~s"), lambda report: report["rows"]),
        _accuracy_chart(reports),
        _trend_chart(reports, "Share of the items recommended", ("share", share), _coverage),
        _trend_chart(reports, "Overlap with the night before", ("share", share), _overlap),
    ]
    charts = [chart for chart in drawn if chart is not None]
    table = Table("The last nights", NIGHT_COLUMNS, [night_row(report) for report in reversed(reports)])
    return [Charts(charts), table]


def _trend_chart(
    reports: Sequence[dict[str, Any]],
    title: str,
    axis: tuple[str, str],
    value_of: Callable[[dict[str, Any]], float | None],
) -> Chart | None:
    """Return a figure by night; None if fewer than two nights have it. axis: title and number format."""
    values = [(report["run_date"][5:], value_of(report)) for report in reports]
    points = [Point(night, value) for night, value in values if value is not None]
    return lines(title, points, ("night", axis[0]), axis[1]) if len(points) > 1 else None


def _accuracy_chart(reports: Sequence[dict[str, Any]]) -> Chart | None:
    points = [
        Point(report["run_date"][5:], value, series)
        for report in reports
        for series, value in _accuracy(report).items()
    ]
    return lines("Accuracy on held-out items", points, ("night", "NDCG@10")) if len(points) > 2 else None


def night_row(report: dict[str, Any]) -> list[Cell]:
    """Return the figures of a night, one for each of NIGHT_COLUMNS; None for what a failed night lacks."""
    accuracy = _accuracy(report)
    return [
        report["run_date"],
        round(report["seconds"], 1),
        report["users"],
        report["rows"],
        accuracy.get("model"),
        accuracy.get("popularity"),
        _coverage(report),
        _overlap(report),
        "yes" if report["trained_because"] else "no",
    ]


def _coverage(report: dict[str, Any]) -> float | None:
    return _checked(report, "share of the items recommended")


def _overlap(report: dict[str, Any]) -> float | None:
    return _checked(report, "overlap with last night")


def _accuracy(report: dict[str, Any]) -> dict[str, float]:
    """Return the accuracy of the model that made the table, and of popularity on the same items."""
    if not report["models"]:
        return {}
    model = report["models"][-1]
    return {"model": model["ndcg_at_10"], "popularity": model["popularity_ndcg_at_10"]}


def _checked(report: dict[str, Any], figure: str) -> float | None:
    """Return a figure that a gate of a night checked; None if none did."""
    return next((check["value"] for check in report["checks"] if check["figure"] == figure), None)


def _duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _time(text: str) -> str:
    return text.replace("T", " ").replace("+00:00", " UTC")
