"""The similar gate: the table of similar items keeps its contract and its rules, and most items have a list."""

from typing import Any

from batchrec.config import RunConfig
from batchrec.nightly.report import Check
from batchrec.similarity.similar import SimilarReport
from batchrec.similarity.table_check import SimilarFigures


def similar_checks(
    report: SimilarReport, figures: SimilarFigures, last: dict[str, Any], config: RunConfig
) -> list[Check]:
    """Check the finished table of similar items. last: the stages of last night's report, none without one.

    Lists are counted by the job, everything else in the table.
    """
    checks = [Check("similar", name.replace("_", " "), number, maximum=0) for name, number in figures.faults.items()]
    checks += [
        Check("similar", f"rows that break {rule.rule}", rule.n_rows, maximum=0, example=rule.example)
        for rule in figures.broken_rules
    ]
    checks += [
        Check("similar", "rows", report.rows, minimum=1),
        Check(
            "similar",
            "share of items with a list",
            report.items_with_list / report.items,
            minimum=config.gate_min_similar,
        ),
    ]
    before = last.get("similar", {}).get("rule_rows", {})
    return checks + [
        Check("similar", f"rows of {option}", n_rows, minimum=config.gate_min_rule_rows * before[option])
        for option, n_rows in report.rule_rows.items()
        if option in before
    ]
