"""Tables that people write: read as text, then held against what they must be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError
from batchrec.queries import connect
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
_PLACES = ("first", "second", "third")


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

    def refuse_none(self, expected: str) -> None:
        """Raise InputError for a table without rows."""
        if len(self.rows) == 0:
            raise InputError(f"{self.file}: holds no rows; expected {expected}")


def read_rule_table(file: str, option: str, columns: Sequence[str], optional: Sequence[str] = ()) -> RuleTable:
    """Read up to three columns of CSV or Parquet files, or of a .sql file's SELECT.

    Raises InputError where a column is missing or a file cannot be read, ConfigError for a query that does not run.
    """
    with connect() as con:
        try:
            sources, found = _open(con, file, option, columns, optional)
            wanted = [found[min(place, len(found) - 1)] for place in range(len(_PLACES))]
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
) -> tuple[list[Source], list[str]]:
    """Open the table, and tell which columns are there."""
    if file.lower().endswith(".sql"):
        source = open_query(con, Path(file), columns)
        return [source], [*columns, *(name for name in optional if name in source.names)]
    files = find_files([file], f"{option} FILE")
    names = {name for path in files for name in column_names(path)}
    found = [*columns, *(name for name in optional if name in names)]
    return open_sources(con, files, {name: f"{option} FILE with the column {name}" for name in found}), found


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


def valid_items(table: RuleTable, night: date) -> pa.Array:
    """Give the ids, as text, of the rows that hold on a date: valid_from and valid_to count, and are open where null.

    A time counts by its day, in UTC. Raises InputError for what is no date or time.
    """
    item_ids = table.required("item_id")
    holds = pa.array([True] * len(item_ids), pa.bool_())
    for column, compare in (("valid_from", pc.less_equal), ("valid_to", pc.greater_equal)):
        days = _days(table, column)
        holds = pc.and_(holds, pc.fill_null(compare(days, pa.scalar(night)), True))
    return item_ids.filter(holds)


def _days(table: RuleTable, column: str) -> pa.Array:
    # Tables of many items hold few dates.
    coded = table.rows[column].combine_chunks().dictionary_encode()
    texts = coded.dictionary.to_pylist()
    days = [_day(text) for text in texts]
    wrong = [text for text, day in zip(texts, days, strict=True) if day is None]
    is_wrong = pc.is_in(table.rows[column].combine_chunks(), value_set=pa.array(wrong, pa.string()))
    table.refuse(is_wrong, column, "item_id", "an ISO date or time like 2024-06-01 or 2024-06-01T12:00:00")
    return pa.array(days, pa.date32()).take(coded.indices)


def _day(text: str) -> date | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.date() if moment.tzinfo is None else moment.astimezone(UTC).date()
