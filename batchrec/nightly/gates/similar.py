"""The similar gate: the table of similar items keeps its contract and its rules, and most items have a list."""

from typing import Any

from batchrec.config import RunConfig
from batchrec.nightly.gates.rules import rule_break_checks, rule_rows_checks
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
    checks += rule_break_checks(figures.broken_rules, "similar")
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
    return checks + rule_rows_checks(report.rule_rows, before, config, "similar")
