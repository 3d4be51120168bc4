"""The options of score that say what may stand in a list, and what new users get."""

from calendar import timegm
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from batchrec.config.catalogue import CatalogueConfig
from batchrec.config.options import DATE, check, check_at_least, check_finite, option, parse_date


@dataclass(frozen=True)
class RulesConfig(CatalogueConfig):
    """The rules of a night; each table is CSV, Parquet, or a .sql file with one SELECT."""

    allow: str | None = option(
        None,
        "Recommend these items only: a table of item_id and optionally valid_from, valid_to and --segment-column; "
        "a row that has a segment holds for its users in --segments.",
    )
    block: str | None = option(None, "Recommend none of these items: a table as for --allow.")
    allow_empty_rules: bool = option(
        False, "Accept a rule table that has no rows, or of which no id is known, instead of an error."
    )
    run_date: str | None = option(
        None,
        "The night's date, for valid_from, valid_to, and getvariable('run_date') in a .sql rule table; today in UTC if "
        "not given.",
    )
    block_for_user: str | None = option(None, "Keep items from single users: a table of user_id and item_id.")
    candidates: str | None = option(
        None, "Make each user's list of these items only: a table of user_id and item_id; who is not in it gets none."
    )
    max_per_category: int | None = option(None, "Most items of one category in a list.")
    category_column: str | None = option(
        None, "Column of the item's category in the catalogue --items, for --max-per-category."
    )
    boost: str | None = option(
        None, "Multiply the odds of items: a table of item_id and factor; below 1 makes an item rarer."
    )
    pins: str | None = option(None, "Put items at fixed ranks of every list: a table of item_id and position.")
    diversity: float = option(
        0.0,
        "From 0 to 1: how much unlikeness to the items above counts, beside the score (maximal marginal relevance).",
    )
    popular_days: int = option(
        30, "Users the model knows nothing of get the popular items of so many days at the end of the log."
    )
    segments: str | None = option(
        None, "Segments of users, for popular items, --allow and --block: a table of user_id and --segment-column."
    )
    segment_column: str = option("segment", "Column of the segment in --segments, --allow and --block.")

    def check_rules(self) -> None:
        """Raise ConfigError for a value that cannot be used."""
        check_finite(self)
        check_at_least(self, 1, "max_per_category", "popular_days")
        check(self.popular_days <= 1_000_000, "popular_days", self.popular_days, "1000000 or less")
        check(0 <= self.diversity <= 1, "diversity", self.diversity, "a number from 0 to 1")
        check(
            self.run_date is None or parse_date(self.run_date) is not None,
            "run_date",
            self.run_date,
            DATE,
        )
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

    @cached_property
    def night(self) -> date:
        """The date that the rules are held against, one and the same also if it is midnight meanwhile."""
        return datetime.now(UTC).date() if self.run_date is None else date.fromisoformat(self.run_date)


def end_of_day(day: date) -> int:
    """Give the moment at which a day ends, in seconds since 1970 UTC."""
    return timegm((day + timedelta(days=1)).timetuple())
