"""The gates: checks of the input, the model and the finished table. A night is published only if all pass."""

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
    figures: HistoriesFigures,
    earlier: Sequence[dict[str, Any]],
    config: RunConfig,
    run_date: date,
) -> list[Check]:
    """Check the histories. earlier: the stages of earlier nights' reports, oldest first."""
    checks = []
    for name in ("rows_read", "users", "items"):
        before = [stages["build-sequences"][name] for stages in earlier]
        if before:
            minimum = config.gate_min_input * median(before)
            checks.append(Check("input", name.replace("_", " "), getattr(built, name), minimum=minimum))
    if not config.gate_new_id_types:
        checks.append(Check("input", "id columns whose type has changed", figures.new_id_types, maximum=0))
    rejected = sum(built.rejected.values()) / built.rows_read
    checks.append(Check("input", "share of rejected rows", rejected, maximum=config.gate_max_rejected))
    age = (run_date - figures.newest.date()).days
    if config.gate_max_age_days is not None:
        checks.append(Check("input", "days since the newest event", age, minimum=0, maximum=config.gate_max_age_days))
    elif earlier and figures.newest.isoformat() == earlier[-1]["build-sequences"].get("newest_until_tonight"):
        _log.warning(
            "the newest event is last night's, %s days old; set --gate-max-age-days to stop such a night",
            age,
        )
    return checks


def model_checks(tonight: ModelFigures, in_use: ModelFigures | None, config: RunConfig) -> list[Check]:
    """Check tonight's model against popularity and, if it is a new one, against the model in use."""
    checks = [Check("model", "NDCG@10", tonight.ndcg_at_10, minimum=tonight.popularity_ndcg_at_10)]
    if in_use is not None and in_use.model_id != tonight.model_id:
        minimum = (1 - config.gate_max_ndcg_drop) * in_use.ndcg_at_10
        checks.append(Check("model", "NDCG@10 against the model in use", tonight.ndcg_at_10, minimum=minimum))
    return checks


def table_checks(figures: TableFigures, n_users: int, n_items: int, config: RunConfig) -> list[Check]:
    """Check the finished table against its contract and its bounds. n_users: the number of users to reach."""
    # With only twenty items, any ten of them are half of everything there is to recommend.
    max_top_items = max(config.gate_max_top_items, min(1.0, 20 / n_items))
    checks = [Check("output", name.replace("_", " "), number, maximum=0) for name, number in figures.faults.items()]
    checks += [
        Check("output", "share of users covered", figures.users / n_users, minimum=config.gate_min_users),
        Check(
            "output",
            "share of users with a full list",
            figures.users_with_full_list / n_users,
            minimum=config.gate_min_full_lists,
        ),
        Check("output", "share of the items recommended", figures.items / n_items, minimum=config.gate_min_coverage),
        Check("output", "share of the ten most frequent items", figures.top_items_share, maximum=max_top_items),
    ]
    checks += [
        Check("rules", f"rows that break {rule.rule}", rule.n_rows, maximum=0, example=rule.example)
        for rule in figures.broken_rules
    ]
    if figures.overlap is not None:
        checks.append(Check("output", "overlap with last night", figures.overlap, minimum=config.gate_min_overlap))
    return checks


def rule_checks(scored: ScoringReport, last: dict[str, Any] | None, config: RunConfig) -> list[Check]:
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
    share = config.gate_min_rule_rows
    checks = [
        Check("rules", f"rows of {option}", n_rows, minimum=share * before[option])
        for option, n_rows in scored.rule_rows.items()
        if option in before
    ]
    if {"--allow", "--block"} & (before.keys() | scored.rule_rows.keys()):
        minimum = share * last["score"]["eligible_items"]
        checks.append(Check("rules", "eligible items", scored.eligible_items, minimum=minimum))
    return checks
