"""The options of build-sequences."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from functools import cached_property
from typing import Literal

from batchrec.config.csv import CsvOptions
from batchrec.config.options import DATE, check, check_at_least, check_finite, option, parse_date

TimestampUnit = Literal["auto", "s", "ms", "us", "ns", "days", "excel"]
IdType = Literal["auto", "integer", "text"]


@dataclass(frozen=True)
class SequencesConfig:
    """Options of `build-sequences`."""

    query: str | None = option(
        None,
        "A file that ends with a SELECT of user_id, item_id and timestamp, read instead of --ratings. Statements "
        "before it may ATTACH, LOAD and SET; getvariable('run_date') is the run date.",
    )
    user_column: str = option("userId", "Column of the user's id.")
    item_column: str = option("movieId", "Column of the item's id.")
    timestamp_column: str = option("timestamp", "Column of the event's time (UTC): a number, ISO text or a timestamp.")
    timestamp_format: str | None = option(
        None, "Format of times written otherwise, as in strptime: %d/%m/%y %H:%M for 28/01/10 09:00."
    )
    rating_column: str = option("rating", "Column of the rating; read only with --min-rating.")
    min_rating: float | None = option(None, "Leave out events rated lower.")
    min_item_events: int = option(1, "Leave out items with fewer events.")
    min_user_events: int = option(1, "Then leave out users with fewer events.")
    seen: Literal["all", "kept"] = option(
        "all", "What counts as seen: all items, or those of events that --min-rating and --min-item-events keep."
    )
    repeats: Literal["last", "first", "all"] = option("last", "Which events of a user with the same item to keep.")
    timestamp_unit: TimestampUnit = option(
        "auto",
        "Unit of numeric times, of all the log; auto goes by their size. days: since 1970, or any day; excel: a "
        "spreadsheet's days.",
    )
    user_id_type: IdType = option(
        "auto",
        "Type of user ids; auto: integers if every id is one, otherwise text. With integer all others are bad rows.",
    )
    item_id_type: IdType = option("auto", "Type of item ids, likewise.")
    null: str | None = option(
        None, r"More words, separated by commas, that mean a missing id, besides \N, NULL, None and NaN."
    )
    delimiter: str | None = option(
        None, "Delimiter of CSV files, like ; or tab or ::; found from the first lines if not given."
    )
    quote: str = option(
        "auto", 'Quote character of CSV files, or none; auto: ", but none in tab-separated files without quoted fields.'
    )
    header: Literal["yes", "no"] = option("yes", "Whether CSV files begin with a header.")
    columns: str | None = option(
        None, "Names of the columns of CSV files, in their order, separated by commas; instead of those of a header."
    )
    max_bad_rows: str = option("0", "How many rows may be unusable before the job fails: a number, or a share like 1%.")
    run_date: str | None = option(None, "The run date that a query sees; today in UTC if not given.")
    memory_limit: str | None = option(None, "Most memory DuckDB may use before it spills to disk, like 2GB.")
    threads: int | None = option(None, "Threads DuckDB may use; the cores or the quota of the process if not given.")

    def __post_init__(self) -> None:
        check_finite(self)
        check_at_least(self, 1, "min_item_events", "min_user_events", "threads")
        check(self.run_date is None or parse_date(self.run_date) is not None, "run_date", self.run_date, DATE)
        check(
            len({self.user_column, self.item_column, self.timestamp_column}) == 3 or self.query is not None,
            "item_column",
            self.item_column,
            "three different columns for users, items and times",
        )
        _ = self.csv_options
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

    @property
    def csv_options(self) -> CsvOptions:
        """What is said of CSV files."""
        return CsvOptions.parse(self.delimiter, self.quote, self.header, self.columns, self.null)

    @cached_property
    def night(self) -> date:
        """The date that a query sees, one and the same also if it is midnight meanwhile."""
        return datetime.now(UTC).date() if self.run_date is None else date.fromisoformat(self.run_date)

    def bad_rows_allowed(self, n_rows: int) -> int:
        """Count the unusable rows allowed among `n_rows`."""
        if self.max_bad_rows.endswith("%"):
            return int(n_rows * Fraction(self.max_bad_rows[:-1]) / 100)
        return int(self.max_bad_rows)
