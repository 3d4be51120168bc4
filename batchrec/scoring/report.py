"""The report of a scoring."""

from dataclasses import dataclass

from batchrec.tables.report_table import ReportTable


@dataclass(frozen=True)
class ScoringReport(ReportTable):
    """Users by where their lists come from: users = by model + by popularity + skipped (all items seen) + emptied.

    emptied_by: users without a list, per rule (its option) that left them nothing.
    eligible_items: how many of the model's items and the pins the rules let any user get.
    rule_rows: number of rows of each rule table, and of users that --users lists, by option.
    """

    out: str
    model_id: str
    device: str
    users: int
    users_by_model: int
    users_by_popularity: int
    users_skipped_all_seen: int
    emptied_by: dict[str, int]
    users_with_fewer_than_top_k: int
    users_carried_over: int
    eligible_items: int
    rule_rows: dict[str, int]
    unknown_items_in_histories: int
    rows: int
    seconds: float
