"""The options of build-sequences."""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from typing import Literal

from batchrec.config.csv import CsvOptions
from batchrec.config.event_weights import parse_steps, parse_weights
from batchrec.config.options import AGE, DATE, MAX_THREADS, check, check_values, option, parse_age, parse_date
from batchrec.config.run_date import RunDate

TimestampUnit = Literal["auto", "s", "ms", "us", "ns", "days", "excel"]
IdType = Literal["auto", "integer", "text"]
SequencesEngineName = Literal["local", "spark"]


@dataclass(frozen=True)
class SequencesConfig(RunDate):
    """Options of `build-sequences`."""

    query: str | None = option(
        None,
        "SQL file that ends with a SELECT of user_id, item_id and timestamp, to read instead of --ratings. Statements "
        "before the SELECT may ATTACH, LOAD and SET. getvariable('run_date') is the run date.",
    )
    user_column: str = option("userId", "User id column.")
    item_column: str = option("movieId", "Item id column.")
    timestamp_column: str = option("timestamp", "Event time column (UTC): a number, ISO text or a timestamp.")
    timestamp_format: str | None = option(
        None, "Format of times in other spellings, as for strptime: %d/%m/%y %H:%M for 28/01/10 09:00."
    )
    rating_column: str = option("rating", "Rating column; read only with --min-rating.")
    min_rating: float | None = option(None, "Minimum rating; events rated lower are left out.")
    min_item_events: int = option(1, "Minimum events per item; items with fewer are left out.", minimum=1)
    min_user_events: int = option(
        1, "Minimum events per user, counted after --min-item-events; users with fewer are left out.", minimum=1
    )
    since: str | None = option(
        None,
        "Leave out older events: 90d or 12w for days or weeks before the run date, or a date like 2024-06-01. They do "
        "not count as seen.",
    )
    seen: Literal["all", "kept"] = option(
        "all",
        "Items that count as seen: all of the user's events, or only the events kept by --min-rating and "
        "--min-item-events.",
    )
    repeats: Literal["last", "first", "all"] = option("last", "Which of a user's events with the same item to keep.")
    event_column: str | None = option(
        None, "Column of the event's type, such as view or purchase; --event-weights says how much each type counts."
    )
    event_weights: str | None = option(
        None,
        "Weight of each type, like view=1,cart=3,purchase=5. 0: the item only counts as seen. Below 0: a dislike, and "
        "the item is never recommended to the user. A row of any other type is bad.",
        takes_table=True,
    )
    seen_events: str | None = option(
        None, "Types whose items count as seen, separated by commas. Default: all types of --event-weights."
    )
    value_column: str | None = option(
        None, "Column of a number that weighs the event, such as a quantity, seconds played or a rating."
    )
    value_weight: str = option(
        "linear",
        "Weight of a value, which multiplies that of the type. linear: the value. log: ln(1 + value). Steps like "
        "30=1,300=2: the weight of the last step that the value reaches, 0 below the first.",
        takes_table=True,
    )
    timestamp_unit: TimestampUnit = option(
        "auto",
        "Unit of numeric times, the same for all the log. auto: chosen by their size. days: since 1970, or any other "
        "day. excel: days as spreadsheets count them.",
    )
    user_id_type: IdType = option(
        "auto",
        "Type of user ids. auto: integer if every id is one, otherwise text. integer: rows with other ids are bad.",
    )
    item_id_type: IdType = option("auto", "Type of item ids, as for --user-id-type.")
    null: str | None = option(
        None, r"Words that mean a missing id, separated by commas, in addition to \N, NULL, None, NaN, <NA> and NaT."
    )
    delimiter: str | None = option(
        None, "Delimiter of CSV files, like ; or tab or ::. Default: detected from the first lines."
    )
    quote: str = option(
        "auto", 'Quote character of CSV files, or none. auto: ", but none in tab-separated files without quoted fields.'
    )
    header: Literal["yes", "no"] = option("yes", "Whether CSV files start with a header.")
    columns: str | None = option(
        None, "Column names of CSV files, in order, separated by commas; they replace the header's names."
    )
    max_bad_rows: str = option(
        "0", "Maximum number of unusable rows, or a share like 1%; the job fails if there are more."
    )
    run_date: str | None = option(
        None, "Run date that a query sees, and from which --since counts back. Default: today (UTC)."
    )
    engine: SequencesEngineName = option(
        "local",
        "Where the log is read and sorted: on this machine, or by the workers of a Spark cluster.",
    )
    memory_limit: str | None = option(
        None, "Maximum memory of DuckDB, in each worker of an engine, before it spills to disk, like 2GB."
    )
    threads: int | None = option(
        None,
        "Number of DuckDB threads. Default: the CPU cores or the CPU quota of the process.",
        minimum=1,
        maximum=MAX_THREADS,
    )

    def __post_init__(self) -> None:
        check_values(self)
        self.check_run_date()
        check(
            len({self.user_column, self.item_column, self.timestamp_column}) == 3 or self.query is not None,
            "item_column",
            self.item_column,
            "three different columns for users, items and times",
        )
        check(
            self.since is None or parse_age(self.since) is not None or parse_date(self.since) is not None,
            "since",
            self.since,
            f"{AGE}, or {DATE}",
        )
        self._check_timestamp_format()
        self._check_weights()
        _ = self.csv_options
        # DuckDB takes any text that starts with a minus as no limit.
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

    def _check_timestamp_format(self) -> None:
        """Raise ConfigError for a format that reads other times than are meant: without a year, or with a zone's name.

        A zone that is written out in the format is a letter like any other, and its times would be read as UTC.
        """
        if self.timestamp_format is None:
            return
        has_year = re.search("%-?[YyGcxFDs]", self.timestamp_format)
        check(has_year is not None, "timestamp_format", self.timestamp_format, "a year in it, like %Y")
        if re.search("%-?[zZ]", self.timestamp_format) is None:
            letters = re.sub("%-?.", " ", self.timestamp_format)
            zone = re.search(r"\b(?!GMT\b)([A-Z]{2,4}T|MSK)\b|(?<!\w)[+-](?!00:?00)\d\d:?\d\d\b", letters)
            expected = f"%{'Z' if zone and zone[1] else 'z'} in place of {zone and zone[0]}, which would be read as UTC"
            check(zone is None, "timestamp_format", self.timestamp_format, expected)

    def _check_weights(self) -> None:
        """Raise ConfigError for weights that cannot be read, and options that do not fit together."""
        has_types = self.event_column is not None
        has_weights = self.event_weights is not None
        check(has_weights or not has_types, "event_column", self.event_column, "--event-weights with it")
        check(has_types or not has_weights, "event_weights", self.event_weights, "--event-column with it")
        check(has_types or self.seen_events is None, "seen_events", self.seen_events, "--event-column with it")
        has_values = self.value_column is not None
        check(has_values or self.value_weight == "linear", "value_weight", self.value_weight, "--value-column with it")
        known = self.weight_of_type
        for name in self.seen_types:
            check(name in known, "seen_events", self.seen_events, f"types of --event-weights, not {name!r}")
        _ = self.value_steps
        if self.weighs_events:
            check(self.seen == "all", "seen", self.seen, "all with --event-column and --value-column")
            check(self.engine == "local", "engine", self.engine, "local with --event-column and --value-column")

    @property
    def weighs_events(self) -> bool:
        """Whether events have weights; otherwise all weigh 1."""
        return self.event_column is not None or self.value_column is not None

    @property
    def weight_of_type(self) -> dict[str, float]:
        """The weight of each type of event; empty without types."""
        return {} if self.event_weights is None else parse_weights("event_weights", self.event_weights)

    @property
    def seen_types(self) -> list[str]:
        """The types whose items count as seen; empty without types."""
        if self.seen_events is None:
            return list(self.weight_of_type)
        return [name.strip() for name in self.seen_events.split(",")]

    @property
    def value_steps(self) -> list[tuple[float, float]]:
        """The steps of --value-weight, ascending, as (value, weight); empty if it names a function."""
        return [] if self.value_weight in {"linear", "log"} else parse_steps("value_weight", self.value_weight)

    @property
    def csv_options(self) -> CsvOptions:
        """The options of CSV files, parsed."""
        return CsvOptions.parse(self.delimiter, self.quote, self.header, self.columns, self.null)

    @property
    def since_day(self) -> date | None:
        """The first day whose events are kept; None for all."""
        days = parse_age(self.since or "")
        if days is None:
            return None if self.since is None else date.fromisoformat(self.since)
        return self.night - timedelta(days=days)

    def bad_rows_allowed(self, n_rows: int) -> int:
        """Return how many of `n_rows` rows may be unusable."""
        if self.max_bad_rows.endswith("%"):
            return int(n_rows * Fraction(self.max_bad_rows[:-1]) / 100)
        return int(self.max_bad_rows)
