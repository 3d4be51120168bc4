"""Mutate tables that people write, and record how each is read. Runs as a process of its own.

`python -m tests.faults.mutated_rules WORK FIRST LAST` writes two JSON lines per mutation to WORK/outcomes, as
mutated_logs does. The columns are those of --block and --allow, --pins, --boost, --block-for-user and --candidates,
--segments, --users and --items.
"""

import io
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import BatchrecError
from batchrec.rules.rule_tables import read_rule_table
from batchrec.scoring.user_list import read_user_list
from batchrec.sources.text_tables import read_text_table
from tests.faults.byte_mutations import HOSTILE, MUTATIONS, TEXT_MUTATIONS, mutated
from tests.faults.plain_logs import BLANKS, is_integer, is_missing, read_records

# The values of each row, None if one is missing.
Rows = list[tuple[str | None, ...]]


@dataclass(frozen=True)
class Base:
    """A valid table; optional: columns that may be missing."""

    option: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()

    @property
    def all_columns(self) -> tuple[str, ...]:
        return (*self.columns, *self.optional)


BASES = [
    Base(
        "--block",
        ("item_id",),
        tuple((str(10 + n), f"2024-0{n}-01", "" if n % 2 else f"2024-0{n}-28") for n in range(1, 9)),
        ("valid_from", "valid_to"),
    ),
    Base("--pins", ("item_id", "position"), tuple((f"A{n}", str(n)) for n in range(1, 6))),
    Base("--boost", ("item_id", "factor"), tuple((str(n), f"{n}.25") for n in range(1, 9))),
    Base("--candidates", ("user_id", "item_id"), tuple((f"u{n % 3}", f"A {n}") for n in range(1, 12))),
    Base("--segments", ("user_id", "segment"), tuple((str(n), ["de", "fr"][n % 2]) for n in range(1, 10))),
    Base("--users", ("user_id",), tuple((str(n),) for n in range(1, 12))),
    Base("--items", ("movieId", "title"), tuple((str(n), f'Film {n}, "The"') for n in range(1, 9))),
]
_DELIMITERS = [",", ";", "\t", "|"]


def _text_of(base: Base, delimiter: str) -> str:
    def written(value: str) -> str:
        return '"' + value.replace('"', '""') + '"' if '"' in value or delimiter in value else value

    rows = [base.all_columns, *base.rows]
    return "".join(delimiter.join(map(written, row)) + "\n" for row in rows)


def _parquet_of(base: Base, chance: random.Random) -> bytes:
    columns = {name: [row[place] or None for row in base.rows] for place, name in enumerate(base.all_columns)}
    if chance.random() < 0.5:
        for values in columns.values():
            values[chance.randrange(len(values))] = chance.choice(HOSTILE).decode("utf-8", "replace")
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    for name, array in arrays.items():
        if (
            all(value is not None and value.isdigit() and len(value) < 9 for value in array.to_pylist())
            and chance.random() < 0.5
        ):
            arrays[name] = array.cast(pa.int64()).cast(
                chance.choice([pa.int64(), pa.float64(), pa.int32()]), safe=False
            )
    target = io.BytesIO()
    pq.write_table(pa.table(arrays), target, use_dictionary=chance.random() < 0.5, compression="none")
    return target.getvalue()


def mutation(number: int) -> tuple[Base, str, str, bytes]:
    """Return the table, its delimiter (empty for Parquet), a description of the changes, and the changed file."""
    chance = random.Random(number)  # noqa: S311 - a sample, no secret
    base = BASES[number % len(BASES)]
    if number % 3 == 0:
        contents = _parquet_of(base, chance)
        done, contents = mutated(contents, chance, MUTATIONS) if chance.random() < 0.6 else ("values", contents)
        return base, "", done, contents
    delimiter = chance.choice(_DELIMITERS)
    done, contents = mutated(_text_of(base, delimiter).encode(), chance, TEXT_MUTATIONS)
    return base, delimiter, done, contents


def _read(base: Base, file: str) -> Rows:
    """Read a table as the job does."""
    if base.option == "--users":
        return [(str(user),) for user in read_user_list(file, pa.string()).to_pylist()]
    if base.option == "--items":
        table = read_text_table(file, base.option, dict.fromkeys(base.columns, base.option)).rows
    else:
        table = read_rule_table(file, base.option, base.columns, base.optional).rows
    return [tuple(row.values()) for row in table.to_pylist()]


def outcome(base: Base, delimiter: str, contents: bytes, folder: Path) -> str:
    """Read a table; return "refused", the check that it has passed, or a WRONG text."""
    file = folder / ("table.csv" if delimiter else "table.parquet")
    file.write_bytes(contents)
    try:
        rows = _read(base, str(file))
    except BatchrecError as error:
        return "refused" if len(str(error)) < 3000 else f"WRONG: more than a line: {error}"
    except Exception as error:
        return f"WRONG: {error!r}"[:1500]
    expected = _expected(base, delimiter, contents)
    if expected is None:
        text = contents.decode("utf-8", "replace").replace('"', "")
        invented = [value for row in rows for value in row if value and value.replace('"', "") not in text]
        if delimiter and invented:
            return f"WRONG: invented {invented}"
        return "nothing invented"
    found = Counter(_alike(base, row) for row in rows)
    if base.option == "--users":
        expected = list(dict.fromkeys(_alike(base, row) for row in expected))
    wanted = Counter(_alike(base, row) for row in expected)
    if found != wanted:
        return f"WRONG: {list((found - wanted).items())} instead of {list((wanted - found).items())}"
    return "equal to an independent table"


def _alike(base: Base, row: Sequence[str | None]) -> tuple[str | None, ...]:
    """Return the values of a row in a form that is equal for values of the same meaning."""
    ids = {"user_id", "item_id"} if base.option != "--items" else set()
    spelled = []
    for name, value in zip(base.all_columns, row, strict=True):
        trimmed = None if value is None else value.strip(BLANKS)
        spelled.append(None if not trimmed or (name in ids and is_missing(trimmed)) else trimmed)
    return tuple(spelled)


def _expected(base: Base, delimiter: str, contents: bytes) -> Rows | None:
    """Read a table with an independent reader; return None if the result is doubtful."""
    if not delimiter:
        return _expected_of_parquet(base, contents)
    records = read_records(contents, delimiter, '"', base.all_columns)
    header = records.header
    if not records.is_plain or records.n_bad or any(header.count(name) > 1 for name in base.all_columns):
        return None
    if any(name not in header for name in base.columns) or (delimiter == "\t" and b'"' not in contents):
        return None
    if len(header) == 1 and any(mark in contents.decode("utf-8", "replace") for mark in _DELIMITERS):
        # A single column does not show its delimiter.
        return None
    places = [header.index(name) if name in header else -1 for name in base.all_columns]
    return [tuple(None if place < 0 else row[place] or None for place in places) for row in records.rows]


def _expected_of_parquet(base: Base, contents: bytes) -> Rows | None:
    try:
        table = pq.ParquetFile(io.BytesIO(contents)).read()
        table.validate(full=True)
        if any(name not in table.schema.names for name in base.columns):
            # A single column may have any name.
            return None
        columns: list[list[Any]] = [
            table[name].to_pylist() if name in table.schema.names else [None] * len(table) for name in base.all_columns
        ]
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    texts = [[_text(value) for value in column] for column in columns]
    return [tuple(row) for row in zip(*texts, strict=True)]


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value)
    return (text.removesuffix(".0") if isinstance(value, float) and is_integer(text) else text) or None


def main() -> None:
    folder = Path(sys.argv[1])
    logging.disable(logging.CRITICAL)
    with (folder / "outcomes").open("w", encoding="utf-8") as outcomes:
        for number in range(int(sys.argv[2]), int(sys.argv[3])):
            base, delimiter, done, contents = mutation(number)
            name = f"{base.option} {delimiter or 'Parquet'}"
            print(json.dumps({"number": number, "done": f"{name}: {done}"}), file=outcomes, flush=True)
            found = outcome(base, delimiter, contents, folder)
            print(json.dumps({"number": number, "outcome": found}), file=outcomes, flush=True)


if __name__ == "__main__":
    main()
