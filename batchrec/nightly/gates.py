"""The gates: what must hold of the input, the model and the finished table for a night to be published."""

import logging
from collections.abc import Sequence
from datetime import date
from statistics import median
from typing import Any

from batchrec.config import RunConfig
from batchrec.nightly.figures import HistoriesFigures, TableFigures
from batchrec.nightly.report import Check, ModelFigures
from batchrec.scoring.score import ScoringReport
from batchrec.sequences.build import SequencesReport

_log = logging.getLogger(__name__)


def input_checks(
    built: SequencesReport,
    found: HistoriesFigures,
    earlier: Sequence[dict[str, Any]],
    config: RunConfig,
    run_date: date,
) -> list[Check]:
    """Hold the histories against those of earlier nights, given by the stages of their reports."""
    checks = []
    for figure in ("rows_read", "users", "items"):
        before = [stages["build-sequences"][figure] for stages in earlier]
        if before:
            least = config.gate_min_input * median(before)
            checks.append(Check("input", figure.replace("_", " "), getattr(built, figure), minimum=least))
    if not config.gate_new_id_types:
        checks.append(Check("input", "columns of ids whose type has changed", found.new_id_types, maximum=0))
    rejected = sum(built.rejected.values()) / built.rows_read
    checks.append(Check("input", "share of rejected rows", rejected, maximum=config.gate_max_rejected))
    age = (run_date - found.newest.date()).days
    if config.gate_max_age_days is not None:
        checks.append(Check("input", "days since the newest event", age, minimum=0, maximum=config.gate_max_age_days))
    elif earlier and found.newest.isoformat() == earlier[-1]["build-sequences"].get("newest_until_tonight"):
        _log.warning("nothing is newer than on the last night, and --gate-max-age-days is not set: %s days old", age)
    return checks


def model_checks(tonight: ModelFigures, in_use: ModelFigures | None, config: RunConfig) -> list[Check]:
    """Hold the model of tonight against popularity and, where it is another, the one in use."""
    checks = [Check("model", "NDCG@10", tonight.ndcg_at_10, minimum=tonight.popularity_ndcg_at_10)]
    if in_use is not None and in_use.model_id != tonight.model_id:
        least = (1 - config.gate_max_ndcg_drop) * in_use.ndcg_at_10
        checks.append(Check("model", "NDCG@10 beside the model in use", tonight.ndcg_at_10, minimum=least))
    return checks


def table_checks(found: TableFigures, n_users: int, n_items: int, config: RunConfig) -> list[Check]:
    """Hold the finished table against its contract and its bounds; n_users: how many it should reach."""
    # Of twenty items any ten are half of all that there is to recommend.
    most_top_items = max(config.gate_max_top_items, min(1.0, 20 / n_items))
    checks = [Check("output", name.replace("_", " "), number, maximum=0) for name, number in found.faults.items()]
    checks += [
        Check("output", "share of users covered", found.users / n_users, minimum=config.gate_min_users),
        Check(
            "output",
            "share of users with a full list",
            found.users_with_full_list / n_users,
            minimum=config.gate_min_full_lists,
        ),
        Check("output", "share of the items recommended", found.items / n_items, minimum=config.gate_min_coverage),
        Check("output", "share of the ten most frequent items", found.top_items_share, maximum=most_top_items),
    ]
    checks += [
        Check("rules", f"rows that break {rule.rule}", rule.n_rows, maximum=0, example=rule.example)
        for rule in found.broken_rules
    ]
    if found.overlap is not None:
        checks.append(Check("output", "overlap with last night", found.overlap, minimum=config.gate_min_overlap))
    return checks


def rule_checks(scored: ScoringReport, last: dict[str, Any] | None, config: RunConfig) -> list[Check]:
    """Hold the sizes of the rule tables against last night's; last: the stages of its report, None if there is none."""
    if last is None:
        return []
    before = last.get("score", {}).get("rule_rows")
    if not isinstance(before, dict):
        if scored.rule_rows:
            _log.warning("last night's report has no rows of rule tables, so tonight's are not held against them")
        return []
    gone = sorted(before.keys() - scored.rule_rows.keys())
    if gone:
        _log.warning("rules of last night that are not given tonight: %s", ", ".join(gone))
    share = config.gate_min_rule_rows
    checks = [
        Check("rules", f"rows of {option}", n_rows, minimum=share * before[option])
        for option, n_rows in scored.rule_rows.items()
        if option in before
    ]
    if {"--allow", "--block"} & (before.keys() | scored.rule_rows.keys()):
        least = share * last["score"]["eligible_items"]
        checks.append(Check("rules", "items that anybody may get", scored.eligible_items, minimum=least))
    return checks
