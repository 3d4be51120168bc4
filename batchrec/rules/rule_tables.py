"""The rule tables that the options name, as text: before any id is looked up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import RulesConfig
from batchrec.errors import ConfigError, InputError
from batchrec.sources.text_tables import TextTable, read_text_table

# What the segment's column is called in the tables of --allow and --block once they are read.
SEGMENT = "segment"
_DATES = ("valid_from", "valid_to")
_PAIRS = ("user_id", "item_id")


@dataclass(frozen=True)
class RuleTable(TextTable):
    """The table of a rule. unread: its columns that no rule reads."""

    unread: tuple[str, ...] = ()

    def numbers(self, column: str, of: str, expected: str) -> pa.Array:
        """Give a column as float64. Raises InputError for what is no number, naming the item of the column `of`."""
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
        """Raise InputError for a value of a column that stands in several rows."""
        counts = pc.value_counts(values.drop_null())
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(repeated):
            value, n_rows = repeated[0]["values"], repeated[0]["counts"]
            raise InputError(f"{self.file}: {column} {value} has {n_rows} rows; expected one")

    def days(self, column: str) -> pa.Array:
        """Return a column of dates or times as date32, by the UTC day; null if open.

        Raises InputError for a value that is not a date or time.
        """
        # Tables of many items hold few dates.
        coded = self.rows[column].combine_chunks().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        days = [_day(text) for text in texts]
        wrong = [text for text, day in zip(texts, days, strict=True) if day is None]
        is_wrong = pc.is_in(self.rows[column].combine_chunks(), value_set=pa.array(wrong, pa.string()))
        self.refuse(is_wrong, column, "item_id", "an ISO date or time like 2024-06-01 or 2024-06-01T12:00:00")
        return pa.array(days, pa.date32()).take(coded.indices)

    def holds(self, night: date) -> pa.Array:
        """Return for each row whether it holds on a date: valid_from and valid_to count, and are open if null."""
        holds = pa.array([True] * len(self.rows), pa.bool_())
        for column, compare in (("valid_from", pc.less_equal), ("valid_to", pc.greater_equal)):
            holds = pc.and_(holds, pc.fill_null(compare(self.days(column), pa.scalar(night)), True))
        return holds


# Option -> the table that it names.
RuleTables = Mapping[str, RuleTable]


def read_rule_tables(config: RulesConfig) -> RuleTables:
    """Read the tables.

    Raises InputError for a table that cannot be read, ConfigError for a query that does not run, and for rows by
    segment where nobody says who is in which.
    """
    columns: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
        "--boost": (config.boost, ("item_id", "factor")),
        "--pins": (config.pins, ("item_id", "position")),
        "--block-for-user": (config.block_for_user, _PAIRS),
        "--candidates": (config.candidates, _PAIRS),
        "--segments": (config.segments, ("user_id", config.segment_column)),
    }
    lists = {"--allow": config.allow, "--block": config.block}
    tables = {option: _read_list(file, option, config) for option, file in lists.items() if file is not None}
    tables |= {
        option: read_rule_table(file, option, required, (), config.night)
        for option, (file, required) in columns.items()
        if file is not None
    }
    if "--segments" in tables:
        tables["--segments"] = tables["--segments"].without_null_words(config.segment_column)
    for option in lists:
        table = tables.get(option)
        if table is not None and "--segments" not in tables and table.rows[SEGMENT].null_count < len(table.rows):
            raise ConfigError(
                f"{option} {table.file}: has rows by segment; expected --segments, a table that says which user is in "
                "which segment"
            )
    return tables


def _read_list(file: str, option: str, config: RulesConfig) -> RuleTable:
    """Read a table of --allow or --block; its segments are in the column --segment-column, or else in `segment`."""
    own = config.segment_column
    # Of the five, the last is not read where all are there.
    others = tuple(dict.fromkeys((own, *_DATES, SEGMENT)))
    table = read_rule_table(file, option, ("item_id",), others, config.night)
    segment = own if own.lower() in {name.lower() for name in table.names} else SEGMENT
    rows = table.rows.select(["item_id", segment, *_DATES]).rename_columns(["item_id", SEGMENT, *_DATES])
    read = {"item_id", segment.lower(), *_DATES}
    unread = tuple(name for name in table.names if name.lower() not in read)
    return replace(table, rows=rows, unread=unread).without_null_words(SEGMENT)


def read_rule_table(
    file: str, option: str, columns: Sequence[str], optional: Sequence[str] = (), run_date: date | None = None
) -> RuleTable:
    """Read up to four columns of CSV or Parquet files, or of a .sql file's SELECT, which sees the night as run_date.

    Raises InputError if a column is missing or a file cannot be read, ConfigError for a query that does not run.
    """
    wanted = {name: f"{option} FILE with the column {name}" for name in columns}
    read = read_text_table(file, option, wanted, optional, run_date)
    table = RuleTable(file, read.rows, read.names)
    for name in {"user_id", "item_id"}.intersection(columns):
        table = table.without_null_words(name)
    return table


def _day(text: str) -> date | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.date() if moment.tzinfo is None else moment.astimezone(UTC).date()
