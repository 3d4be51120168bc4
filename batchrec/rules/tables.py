"""Tables that people write: read as text, then held against what they must be."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError
from batchrec.queries import connect, set_run_date
from batchrec.sources import (
    Source,
    column_names,
    find_files,
    in_words,
    malformed_records,
    open_query,
    open_sources,
    unite,
)

_MOST = str(2**63 - 1)
_PLACES = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class RuleTable:
    """A table that an option names: text columns, null where they are empty or the table has none of that name."""

    file: str
    rows: pa.Table

    def required(self, column: str) -> pa.Array:
        """Give a column that must hold a value in each row. Raises InputError where it does not."""
        found = self.rows[column].combine_chunks()
        if found.null_count:
            raise InputError(f"{self.file}: {found.null_count} of {len(found)} rows have no {column}")
        return found

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


def read_rule_table(
    file: str, option: str, columns: Sequence[str], optional: Sequence[str] = (), night: date | None = None
) -> RuleTable:
    """Read up to four columns of CSV or Parquet files, or of a .sql file's SELECT, which sees the night as run_date.

    Column names match without regard to case if no column has the very name.
    Raises InputError where a column is missing or a file cannot be read, ConfigError for a query that does not run.
    """
    with connect() as con:
        set_run_date(con, night)
        try:
            sources, found = _open(con, file, option, columns, optional)
            names = list(found.values())
            wanted = [names[min(place, len(names) - 1)] for place in range(len(_PLACES))]
            parameters = {f"{place}_column": name for place, name in zip(_PLACES, wanted, strict=True)}
            rows = unite(con, sources, "rule_rows", parameters).to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"{file}: {in_words(error)}") from error
        malformed = malformed_records(con)
    if malformed:
        raise InputError(f"{malformed[0]}. Mend the table of {option}")
    empty = pa.nulls(len(rows), pa.string())
    arrays = {name: rows[place].cast(pa.string()) for name, place in zip(found, _PLACES, strict=False)}
    return RuleTable(file, pa.table({name: arrays.get(name, empty) for name in (*columns, *optional)}))


def _open(
    con: duckdb.DuckDBPyConnection, file: str, option: str, columns: Sequence[str], optional: Sequence[str]
) -> tuple[list[Source], dict[str, str]]:
    """Open the table; returns its sources, and how it spells those of the columns that exist."""
    if file.lower().endswith(".sql"):
        source = open_query(con, Path(file), columns)
        return [source], {name: name for name in [*columns, *(name for name in optional if name in source.names)]}
    files = find_files([file], f"{option} FILE")
    names = {name for path in files for name in column_names(path)}
    spelled = {name: _spelled_in(names, name) for name in (*columns, *optional)}
    found = {name: spelled[name] for name in spelled if name in columns or spelled[name] in names}
    return open_sources(con, files, {name: f"{option} FILE with the column {name}" for name in found.values()}), found


def _spelled_in(names: Collection[str], wanted: str) -> str:
    """Return how a column is spelled, in capitals as a warehouse exports it, if only one differs in case alone."""
    alike = [name for name in names if name.lower() == wanted.lower()]
    return alike[0] if wanted not in names and len(alike) == 1 else wanted


def as_ids(text: pa.Array, id_type: pa.DataType) -> pa.Array:
    """Give ids as int64 or string, null where one cannot be of that type: nobody has it, then."""
    if not pa.types.is_integer(id_type):
        return text.cast(id_type)
    # Floats' spelling of integers, as in the ratings.
    number = pc.replace_substring_regex(text, r"\.0$", "")
    # As texts of one length, numbers compare as they do.
    digits = pc.utf8_lpad(pc.utf8_ltrim(number, "-0"), len(_MOST), "0")
    fits = pc.and_(pc.equal(pc.utf8_length(digits), len(_MOST)), pc.less_equal(digits, _MOST))
    is_integer = pc.and_(pc.match_substring_regex(number, r"^-?\d+$"), fits)
    return pc.if_else(is_integer, number, pa.scalar(None, pa.string())).cast(id_type)


def _day(text: str) -> date | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.date() if moment.tzinfo is None else moment.astimezone(UTC).date()
