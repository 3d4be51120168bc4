"""Rule tables as people write them: read as text, with checks of their values, before any id is looked up."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import RulesConfig
from batchrec.errors import InputError
from batchrec.sources.text_tables import TextTable, read_text_table

# Name of the segment's column in the tables of --allow and --block, once they are read.
SEGMENT = "segment"


@dataclass(frozen=True)
class RuleTable(TextTable):
    """The table of a rule's option; unread: the columns that no rule reads."""

    unread: tuple[str, ...] = ()

    def numbers(self, column: str, of: str, expected: str) -> pa.Array:
        """Return a column as float64. Raises InputError for a text that is not a number, naming its item in `of`."""
        text = self.required(column)
        is_number = pc.match_substring_regex(text, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
        self.refuse(pc.invert(is_number), column, of, expected)
        return text.cast(pa.float64())

    def refuse(self, is_wrong: pa.Array, column: str, of: str, expected: str) -> None:
        """Raise InputError for the first row that is wrong."""
        row = pc.index(is_wrong, True).as_py()
        if row >= 0:
            item = f" of {of} {self.rows[of][row]}" if of != column else ""
            raise InputError(f"{self.file}: {column} {self.rows[column][row].as_py()!r}{item}; expected {expected}")

    def refuse_repeats(self, column: str, values: pa.Array) -> None:
        """Raise InputError for a value of a column that several rows have."""
        counts = pc.value_counts(values.drop_null())
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(repeated):
            value, n_rows = repeated[0]["values"], repeated[0]["counts"]
            raise InputError(f"{self.file}: {column} {value} has {n_rows} rows; expected one")

    def days(self, column: str) -> pa.Array:
        """Return a column of dates or times as date32, the UTC day; null if the row is open on that side.

        Raises InputError for a value that is not a date or time.
        """
        # A table of many items holds few different dates.
        coded = self.rows[column].combine_chunks().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        days = [_day(text) for text in texts]
        wrong = [text for text, day in zip(texts, days, strict=True) if day is None]
        is_wrong = pc.is_in(self.rows[column].combine_chunks(), value_set=pa.array(wrong, pa.string()))
        self.refuse(is_wrong, column, "item_id", "an ISO date or time like 2024-06-01 or 2024-06-01T12:00:00")
        return pa.array(days, pa.date32()).take(coded.indices)

    def is_valid_on(self, night: date) -> pa.Array:
        """Return whether each row is valid on a date: from valid_from to valid_to, both included, open if null.

        Raises InputError for a row that is never valid, or a value that is not a date or time.
        """
        first, last = self.days("valid_from"), self.days("valid_to")
        self.refuse(pc.greater(first, last), "valid_from", "item_id", "a day that is not after valid_to")
        has_begun = pc.fill_null(pc.less_equal(first, pa.scalar(night)), True)
        return pc.and_(has_begun, pc.fill_null(pc.greater_equal(last, pa.scalar(night)), True))


# Option -> its table.
RuleTables = Mapping[str, RuleTable]


def read_rule_table(
    file: str, option: str, columns: Sequence[str], optional: Sequence[str] = (), run_date: date | None = None
) -> RuleTable:
    """Read columns of CSV or Parquet files, or of a .sql file's SELECT, which sees the night's date as run_date.

    Raises InputError if a column is missing or a file cannot be read, ConfigError for a query that does not run.
    """
    wanted = {name: f"{option} FILE with the column {name}" for name in columns}
    text_table = read_text_table(file, option, wanted, optional, run_date)
    table = RuleTable(file, text_table.rows, text_table.names, text_table.inexact)
    for name in {"user_id", "item_id"}.intersection(columns):
        table = table.without_null_words(name)
    return table


def read_given(option: str, file: str | None, columns: Sequence[str], config: RulesConfig) -> RuleTables:
    """Read the table of an option by that option; nothing if the option is not given. Raises as `read_rule_table`."""
    return {} if file is None else {option: read_rule_table(file, option, columns, (), config.night)}


def _day(text: str) -> date | None:
    # The log takes these zones too.
    written = re.sub(r" ?(UTC|GMT)$", "Z", text)
    try:
        time = datetime.fromisoformat(written)
    except ValueError:
        return None
    try:
        return time.date() if time.tzinfo is None else time.astimezone(UTC).date()
    except OverflowError:
        # An end that never comes, such as 9999-12-31T23:59:59-05:00, is after the last day in UTC.
        return time.date()
