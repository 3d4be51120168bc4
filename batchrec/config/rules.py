"""The options of score for rules: which items a list may hold, and what users without a history get."""

from dataclasses import dataclass

from batchrec.config.catalogue import CatalogueConfig
from batchrec.config.options import MAX_DAYS, check, option
from batchrec.config.run_date import RunDate


@dataclass(frozen=True)
class RulesConfig(RunDate, CatalogueConfig):
    """The rules of a night; each rule table is a file, the URL of a table, or a .sql file with one SELECT."""

    allow: str | None = option(
        None,
        "Recommend only these items: a table of item_id and optionally valid_from, valid_to and --segment-column. "
        "A row with a segment applies only to that segment's users in --segments.",
    )
    block: str | None = option(None, "Recommend none of these items: a table like that of --allow.")
    allow_empty_rules: bool = option(
        False, "Accept a rule table that has no rows, or none with a known id. Without this it is an error."
    )
    run_date: str | None = option(
        None,
        "Date of the night, for valid_from, valid_to and getvariable('run_date') in a .sql rule table. Default: "
        "today (UTC).",
    )
    block_for_user: str | None = option(None, "Block items for single users: a table of user_id and item_id.")
    candidates: str | None = option(
        None, "Items that each user may get: a table of user_id and item_id. Users not listed get no recommendations."
    )
    max_per_category: int | None = option(None, "Maximum number of items per category in a list.", minimum=1)
    category_column: str | None = option(None, "Category column of the catalogue --items, for --max-per-category.")
    boost: str | None = option(
        None, "Multiply the odds of items: a table of item_id and factor. Factors below 1 make items rarer."
    )
    pins: str | None = option(None, "Put items at fixed ranks of every list: a table of item_id and position.")
    diversity: float = option(
        0.0,
        "Weight of dissimilarity to the items above, against the score (maximal marginal relevance); 0 ranks by score "
        "only.",
        minimum=0,
        maximum=1,
    )
    popular_days: int = option(
        30,
        "Days at the end of the log that count for popular items. Users with no item known to the model get these.",
        minimum=1,
        maximum=MAX_DAYS,
    )
    segments: str | None = option(
        None, "Segments of users, for --allow, --block and popular items: a table of user_id and --segment-column."
    )
    segment_column: str = option("segment", "Segment column of --segments, --allow and --block.")

    def check_rules(self) -> None:
        """Raise ConfigError for options that do not fit together, and texts that cannot be used."""
        self.check_run_date()
        check(
            self.segment_column.lower() not in {"user_id", "item_id", "valid_from", "valid_to"},
            "segment_column",
            self.segment_column,
            "a column other than user_id, item_id, valid_from and valid_to",
        )
        is_alone = (self.max_per_category is None) != (self.category_column is None)
        name = "category_column" if self.max_per_category is None else "max_per_category"
        check(not is_alone, name, getattr(self, name), "--category-column and --max-per-category, both or none")
        check(
            self.category_column is None or self.items is not None, "category_column", self.category_column, "--items"
        )
