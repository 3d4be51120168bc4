"""The rules gate: no row of the finished table breaks a rule, and no rule table has lost many rows since last night."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from batchrec.config import RunConfig
from batchrec.nightly.report import Check
from batchrec.rules.table_check import BrokenRule
from batchrec.scoring.report import ScoringReport

_log = logging.getLogger(__name__)


def rule_break_checks(broken_rules: Sequence[BrokenRule], gate: str = "rules") -> list[Check]:
    """Check that no row of the finished table breaks a rule. broken_rules: one for each rule that is given."""
    return [
        Check(gate, f"rows that break {rule.rule}", rule.n_rows, maximum=0, example=rule.example)
        for rule in broken_rules
    ]


def rule_rows_checks(
    rule_rows: Mapping[str, int], before: Mapping[str, int], config: RunConfig, gate: str = "rules"
) -> list[Check]:
    """Check the rows of each rule table against last night's, for the tables that both nights had; by option."""
    return [
        Check(gate, f"rows of {option}", n_rows, minimum=config.gate_min_rule_rows * before[option])
        for option, n_rows in rule_rows.items()
        if option in before
    ]


def rule_table_checks(scored: ScoringReport, last: dict[str, Any] | None, config: RunConfig) -> list[Check]:
    """Check the sizes of the rule tables against last night's. last: the stages of its report, if any."""
    if last is None:
        return []
    before = last.get("score", {}).get("rule_rows")
    if not isinstance(before, dict):
        if scored.rule_rows:
            _log.warning(
                "last night's report has no row counts of rule tables, so tonight's are not compared with them"
            )
        return []
    gone = sorted(before.keys() - scored.rule_rows.keys())
    if gone:
        _log.warning("rules that were given last night but not tonight: %s", ", ".join(gone))
    checks = rule_rows_checks(scored.rule_rows, before, config)
    if {"--allow", "--block"} & (before.keys() | scored.rule_rows.keys()):
        minimum = config.gate_min_rule_rows * last["score"]["eligible_items"]
        checks.append(Check("rules", "eligible items", scored.eligible_items, minimum=minimum))
    return checks
