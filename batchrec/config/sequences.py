"""The options of build-sequences."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from batchrec.config.options import check, check_at_least, check_finite, option


@dataclass(frozen=True)
class SequencesConfig:
    """Options of `build-sequences`."""

    query: str | None = option(None, "A file with one SELECT of user_id, item_id and timestamp, instead of --ratings.")
    user_column: str = option("userId", "Column of the user's id.")
    item_column: str = option("movieId", "Column of the item's id.")
    timestamp_column: str = option("timestamp", "Column of the event's time (UTC): a number, ISO text or a timestamp.")
    rating_column: str = option("rating", "Column of the rating; read only with --min-rating.")
    min_rating: float | None = option(None, "Leave out events rated lower.")
    min_item_events: int = option(1, "Leave out items with fewer events.")
    min_user_events: int = option(1, "Then leave out users with fewer events.")
    repeats: Literal["last", "first", "all"] = option("last", "Which events of a user with the same item to keep.")
    timestamp_unit: Literal["auto", "s", "ms", "us"] = option("auto", "Unit of numeric times; auto goes by their size.")
    max_bad_rows: str = option("0", "How many rows may be unusable before the job fails: a number, or a share like 1%.")
    memory_limit: str | None = option(None, "Most memory DuckDB may use before it spills to disk, like 2GB.")
    threads: int | None = option(None, "Threads DuckDB may use; all cores if not given.")

    def __post_init__(self) -> None:
        check_finite(self)
        check_at_least(self, 1, "min_item_events", "min_user_events", "threads")
        check(self.threads is None or self.threads <= 1024, "threads", self.threads, "1024 or less")
        # DuckDB takes whatever begins with a minus for no limit.
        check(
            self.memory_limit is None or re.match(r"\d", self.memory_limit) is not None,
            "memory_limit",
            self.memory_limit,
            "a size like 2GB",
        )
        check(
            re.fullmatch(r"\d+|\d+(\.\d+)?%", self.max_bad_rows) is not None,
            "max_bad_rows",
            self.max_bad_rows,
            "a number of rows like 100, or a share like 0.5%",
        )

    def bad_rows_allowed(self, n_rows: int) -> int:
        """Count the unusable rows allowed among `n_rows`."""
        if self.max_bad_rows.endswith("%"):
            return int(n_rows * Fraction(self.max_bad_rows[:-1]) / 100)
        return int(self.max_bad_rows)
