"""Parquet logs with mutated bytes, and valid Parquet files with values that no log should have."""

import io
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.byte_mutations import HOSTILE, MUTATIONS, mutated
from tests.faults.plain_logs import Values

_T = 1_700_000_000
_PAIRS = [(1 + number % 4, 20 + number * 7 % 5, _T + 86_400 * number) for number in range(12)]
_MOMENTS = [datetime(2023, 11, 14, 22, 13, 20, 5, UTC) + timedelta(days=number) for number in range(12)]
_USERS, _ITEMS, _TIMES = ([pair[place] for pair in _PAIRS] for place in range(3))
_TEXTS = [f"A{item}" for item in _ITEMS]
ROLES = ("userId", "movieId", "timestamp")

# Arrays per role, which hold the same log in different types.
_ARRAYS: dict[str, list[Callable[[], pa.Array]]] = {
    "userId": [
        lambda: pa.array(_USERS),
        lambda: pa.array(_USERS, pa.int32()),
        lambda: pa.array(_USERS, pa.uint64()),
        lambda: pa.array(_USERS, pa.float64()),
        lambda: pa.array(map(Decimal, _USERS), pa.decimal128(12, 2)),
        lambda: pa.array([f"u{user}" for user in _USERS]),
    ],
    "movieId": [
        lambda: pa.array(_ITEMS),
        lambda: pa.array(_TEXTS),
        lambda: pa.array(_TEXTS, pa.large_string()),
        lambda: pa.array(_TEXTS).dictionary_encode(),
        lambda: pa.array([text.encode() for text in _TEXTS], pa.binary()),
        lambda: pa.array(_ITEMS, pa.float32()),
    ],
    "timestamp": [
        lambda: pa.array(_TIMES),
        lambda: pa.array([float(time) + 0.25 for time in _TIMES]),
        lambda: pa.array(_MOMENTS, pa.timestamp("us", "UTC")),
        lambda: pa.array(_MOMENTS, pa.timestamp("ms")).cast(pa.timestamp("s")),
        lambda: pa.array([moment.isoformat() for moment in _MOMENTS]),
        lambda: pa.array([moment.date() for moment in _MOMENTS], pa.date32()),
    ],
}
_HOSTILE_VALUES: dict[str, list[Any]] = {
    "int": [None, 0, -1, 2**31 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 20231215, 1_700_000_000_000, 1],
    "float": [None, 0.0, -0.0, 0.5, 1e400, -1e400, 2.0**24, 2.0**53, 2.0**60, 1e15, 1e9, 3.0],
    "text": [None, "", " ", "\x0b", *(word.decode("utf-8", "replace") for word in HOSTILE), "A20", "A20 ", "1"],
    "bytes": [None, b"", b"\xff", b"A20", b"A\0", *HOSTILE[:40]],
    "date": [None, date(1, 1, 1), date(9999, 12, 31), date(1969, 12, 31), date(2023, 11, 20)],
    "time": [None, datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999), datetime(1969, 12, 31, 23, 59, 59)],
    "decimal": [None, Decimal("0.00"), Decimal("-1.00"), Decimal("1.50"), Decimal("9999999999.99")],
}


def _kind(type_: pa.DataType) -> str:
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    tests: dict[str, Callable[[pa.DataType], bool]] = {
        "int": pa.types.is_integer,
        "float": pa.types.is_floating,
        "bytes": pa.types.is_binary,
        "date": pa.types.is_date,
        "time": pa.types.is_timestamp,
        "decimal": pa.types.is_decimal,
    }
    return next((name for name, test in tests.items() if test(type_)), "text")


def _written(table: pa.Table, chance: random.Random) -> bytes:
    """Write a table with random settings of the writer."""
    target = io.BytesIO()
    pq.write_table(
        table,
        target,
        compression=chance.choice(["none", "none", "snappy", "gzip", "zstd"]),
        use_dictionary=chance.random() < 0.5,
        row_group_size=chance.choice([4, 100]),
        data_page_version=chance.choice(["1.0", "2.0"]),
        write_statistics=chance.random() < 0.7,
        store_schema=chance.random() < 0.5,
    )
    return target.getvalue()


@cache
def _files() -> list[tuple[str, bytes]]:
    """Return the column types and the bytes of valid logs of many types."""
    files = []
    for seed in range(24):
        chance = random.Random(seed)  # noqa: S311 - a sample, no secret
        table = _table(chance)
        files.append((", ".join(map(str, table.schema.types)), _written(table, chance)))
    return files


def _table(chance: random.Random) -> pa.Table:
    arrays = {role: chance.choice(makers)() for role, makers in _ARRAYS.items()}
    return pa.table(arrays | {"rating": pa.array([float(user) for user in _USERS])})


def mutation(number: int) -> tuple[str, str, bytes]:
    """Return the column types of a mutated log, a description of the changes, and the changed file."""
    chance = random.Random(number)  # noqa: S311 - a sample, no secret
    if number % 2 == 0:
        name, contents = chance.choice(_files())
        done, contents = mutated(contents, chance, MUTATIONS)
        return name, done, contents
    table = _table(chance)
    changes: list[str] = []
    for _ in range(chance.choice([1, 1, 2, 4])):
        place, row = chance.randrange(3), chance.randrange(len(table))
        column = table.column(place)
        dense = column.combine_chunks()
        values = dense.to_pylist()
        values[row] = chance.choice(_HOSTILE_VALUES[_kind(column.type)])
        try:
            changed = pa.array(values, column.type)
        except (pa.ArrowException, OverflowError, ValueError):
            continue
        table = table.set_column(place, ROLES[place], changed)
        changes.append(f"{ROLES[place]} = {values[row]!r:.40}")
    if chance.random() < 0.1:
        table = table.slice(0, 0)
    return ", ".join(map(str, table.schema.types)), "; ".join(changes), _written(table, chance)


def read(contents: bytes) -> tuple[list[Values], tuple[bool, bool], bool] | None:
    """Read a file with pyarrow; return None if pyarrow cannot read it.

    Returns the values, whether each column of ids can hold integers, and whether any value is doubtful.
    """
    try:
        table = pq.ParquetFile(io.BytesIO(contents)).read()
        table.validate(full=True)
        if any(table.schema.names.count(role) != 1 for role in ROLES):
            return None
        columns = [table[role].to_pylist() for role in ROLES]
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError):
        return None
    kinds = [_kind(table.schema.field(role).type) for role in ROLES]
    known = ("int", "float", "decimal")
    singles = [pa.types.is_float32(table.schema.field(role).type) for role in ROLES]
    texts = [[_text(value, is_single=s) for value in column] for column, s in zip(columns, singles, strict=True)]
    is_doubtful = any(
        text is None and value is not None
        for t, c in zip(texts, columns, strict=True)
        for text, value in zip(t, c, strict=True)
    )
    return [Values(*row) for row in zip(*texts, strict=True)], (kinds[0] in known, kinds[1] in known), is_doubtful


def _text(value: Any, *, is_single: bool) -> str | None:
    """Return a value as a CSV would spell it; None if no rule decides its spelling."""
    if isinstance(value, float | Decimal):
        return _number(value, 2**24 if is_single else 2**53)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, datetime) and value.year >= 1000:
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, date) and value.year >= 1000:
        return value.isoformat()
    return str(value) if isinstance(value, str | int) and value != "" else None


def _number(value: Any, most: float) -> str | None:
    if abs(value) < most and value == int(value):
        return str(int(value))
    # A larger float has lost digits and is refused as an id.
    is_plain = isinstance(value, float) and 1e-3 < abs(value) < min(most, 1e14)
    return str(value) if is_plain else None
