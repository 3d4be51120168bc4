"""The output gate: the finished table keeps its contract, and reaches enough users and items.

Broken rules are counted with it: they are checks of the rules gate (gates/rules.py).
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from batchrec.config import RunConfig, ScoringConfig
from batchrec.errors import InputError, one_line
from batchrec.nightly.gates.rules import rule_break_checks
from batchrec.nightly.report import Check
from batchrec.rules.rulebook import read_rule_tables
from batchrec.rules.table_check import BrokenRule, FinishedTable, check_rules, view_blocked_items
from batchrec.scoring.user_list import read_user_list
from batchrec.tables.ids import BLANKS
from batchrec.tables.queries import connect, literal, rows_of
from batchrec.tables.sealed_parquet import open_parquet


@dataclass(frozen=True)
class TableFigures:
    """Figures of a finished recs table.

    faults: number of violations of each part of the table's contract. overlap: with an earlier table; None without one.
    broken_rules: number of rows that break each rule that is given. The others are the columns of nightly/recs_reach.
    """

    faults: dict[str, int]
    users: int
    users_with_full_list: int
    items: int
    top_items_share: float
    overlap: float | None
    histories: int
    broken_rules: list[BrokenRule]


def measure_table(recs: Path, sequences: Path, previous: Path | None, scoring: ScoringConfig) -> TableFigures:
    """Measure a recs table against the histories and an earlier table, if any.

    Users without a history do not count unless --users lists them. The rule tables are read again: the check does not
    rely on the scorer, and a rule table that was replaced during the night must hold too.
    Raises InputError if a table has changed since it was written, which SQL would not notice.
    """
    for table in [recs] if previous is None else [recs, previous]:
        try:
            open_parquet(table)
        except OSError as error:
            raise InputError(f"{table}: cannot be read: {one_line(error)}. Run batchrec run again") from error
    rules, listed = read_rule_tables(scoring), None
    if scoring.users is not None and rules:
        user_type = pq.read_schema(recs).field("user_id").type
        listed = read_user_list(scoring.users, user_type, scoring.night, sequences)
    broken = check_rules(FinishedTable(recs, sequences, listed), rules, scoring)
    with connect(recs.parent) as con:
        tables = {"recs": literal(recs), "sequences": literal(sequences)}
        view_blocked_items(con, sequences, scoring)
        (faults,) = rows_of(con, "nightly/recs_faults", recs=tables["recs"], blanks=BLANKS)
        of_histories = scoring.users is None
        (reach,) = rows_of(con, "nightly/recs_reach", **tables, k=scoring.top_k, of_histories=of_histories)
        overlap = None
        if previous is not None:
            both = {"recs": literal(recs), "previous": literal(previous)}
            overlap = rows_of(con, "nightly/recs_overlap", **both, blanks=BLANKS)[0]["overlap"]
    n_faults = {name: int(number) for name, number in faults.items()}
    return TableFigures(faults=n_faults, overlap=overlap, broken_rules=broken, **reach)


def output_checks(figures: TableFigures, n_users: int, n_items: int, config: RunConfig) -> list[Check]:
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
    checks += rule_break_checks(figures.broken_rules)
    if figures.overlap is not None:
        checks.append(Check("output", "overlap with last night", figures.overlap, minimum=config.gate_min_overlap))
    return checks
