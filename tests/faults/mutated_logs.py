"""Mutate small logs byte by byte, and record how build-sequences reads each. Runs as a process of its own.

A mutation is determined by its number. `python -m tests.faults.mutated_logs csv|parquet WORK FIRST LAST` writes two
JSON lines per mutation to WORK/outcomes, one before it and one after it, so that a crash or a hang has a name.
"""

import csv
import gzip
import json
import logging
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batchrec.config import SequencesConfig
from batchrec.errors import BatchrecError
from batchrec.sequences.build import SequencesReport, build_sequences, rejects_of
from tests.faults import csv_logs, mutated_parquet
from tests.faults.csv_logs import Base
from tests.faults.plain_logs import (
    BLANKS,
    Expected,
    Values,
    Verdict,
    expected_of,
    is_missing,
    moment_of,
    read_records,
    spelled,
)

# The times of the events of each user and item.
Table = dict[tuple[Any, Any], list[int]]


def outcome(base: Base, contents: bytes, folder: Path, number: int) -> str:
    """Build sequences from a file; return "refused", the check that its table has passed, or a WRONG text."""
    log = folder / "log.csv"
    log.write_bytes(contents)
    options = dict(base.options)
    if number % 3 == 0:
        options |= {"delimiter": base.delimiter, "quote": base.quote or "none"}
    report, said = build(log, options, folder)
    plain = _decompressed(base, contents)
    if plain is None:
        return report if isinstance(report, str) else "WRONG: a file that cannot be decompressed gave a table"
    if isinstance(report, str):
        return _refusal(base, plain, said, options) if report == "refused" else report
    table = events_of(folder / "out.parquet")
    faults = [*_lost(base, plain, table, folder, report.rows_read), *_invented(plain, table)]
    is_certain, expected = _expected(base, plain)
    if expected is not None:
        faults += _wrong_figures(expected, report, table)
    if faults:
        return f"WRONG: {'; '.join(faults)[:500]}"
    return "equal to an independent table" if is_certain else "nothing lost, nothing invented"


def _decompressed(base: Base, contents: bytes) -> bytes | None:
    if not base.is_gzipped or contents[:2] != b"\x1f\x8b":
        return contents
    try:
        return gzip.decompress(contents)
    except (OSError, EOFError, zlib.error):
        return None


def _wrong_figures(expected: Expected, report: SequencesReport, table: Table) -> Iterator[str]:
    if expected.n_rows != report.rows_read:
        yield f"rows read: {report.rows_read} instead of {expected.n_rows}"
    if expected.is_refused and not expected.is_doubtful:
        yield "a table of times in several units"
    if not expected.is_doubtful and not expected.is_refused:
        yield from differences(expected, report, table)


def _expected(base: Base, plain: bytes) -> tuple[bool, Expected | None]:
    """Return whether all of a file's expected result is certain, and that result, None if its records are doubtful."""
    records = read_records(plain, base.delimiter, base.quote, base.wanted, base.names)
    places = [records.header.index(name) if records.header.count(name) == 1 else -1 for name in base.wanted]
    # Quotes are ordinary characters unless a field is quoted.
    has_quotes = base.quote == "" and b'"' in plain.replace(b'12"', b"")
    if not records.is_plain or -1 in places or has_quotes:
        return False, None
    values = [Values(*(row[place] or None for place in places)) for row in records.rows]
    expected = expected_of(values, records.n_bad, base.min_rating, base.repeats)
    return not (expected.is_refused or expected.is_doubtful), expected


def _refusal(base: Base, plain: bytes, said: str, options: dict[str, Any]) -> str:
    """Return "refused", or a WRONG text if the refused file can be read in only one way."""
    is_certain, expected = _expected(base, plain)
    if not is_certain or expected is None or not expected.events or "delimiter" not in options:
        return "refused"
    return f"WRONG: refused, though nothing is doubtful: {said[:400]}"


def build(log: Path, options: dict[str, Any], folder: Path) -> tuple[SequencesReport | str, str]:
    """Build sequences and allow all bad rows; return the report, "refused" or a WRONG text, and the error message."""
    out = folder / "out.parquet"
    for file in (out, rejects_of(out)):
        file.unlink(missing_ok=True)
    config = SequencesConfig(threads=1, max_bad_rows="100%", **options)
    try:
        return build_sequences([str(log)], config, out), ""
    except BatchrecError as error:
        if out.exists() or len(str(error)) > 3000:
            return f"WRONG: a table, or more than a line: {error}", str(error)
        return "refused", str(error)
    except Exception as error:
        return f"WRONG: {error!r}"[:1500], ""


def events_of(table: Path) -> Table:
    """Return the times of each user and item in a table."""
    found: Table = {}
    for row in pq.read_table(table).to_pylist():
        assert row["timestamps"] == sorted(row["timestamps"])
        for item, second in zip(row["item_ids"], row["timestamps"], strict=True):
            found.setdefault((row["user_id"], item), []).append(second)
    return found


def differences(expected: Expected, report: SequencesReport, table: Table) -> Iterator[str]:
    """Yield the differences between a table and the expected one."""
    found = {(str(user).strip(BLANKS), str(item).strip(BLANKS)): times for (user, item), times in table.items()}
    if found != expected.events:
        more = [(pair, times) for pair, times in found.items() if expected.events.get(pair) != times]
        fewer = [(pair, times) for pair, times in expected.events.items() if found.get(pair) != times]
        yield f"events {more} instead of {fewer}"
    types = (report.user_id_type, report.item_id_type)
    wanted = tuple("int64" if are else "string" for are in expected.are_integers)
    if types != wanted:
        yield f"types {types} instead of {wanted}"
    if sum(report.rejected.values()) != expected.n_rejected:
        yield f"rejected {report.rejected} instead of {expected.n_rejected}"
    if sum(report.left_out.values()) != expected.n_below:
        yield f"left out {report.left_out} instead of {expected.n_below}"


def _lost(base: Base, plain: bytes, table: Table, folder: Path, n_rows: int) -> Iterator[str]:
    """Yield the lines that are complete events without quotes but neither in the table nor among the rejects.

    n_rows: of the report; each of these lines counts as a row, also within a quote that is never closed.
    """
    first, *lines = plain.decode("utf-8", "surrogateescape").split("\n")
    columns = list(base.names) or [name.strip('"\ufeff\r') for name in first.split(base.delimiter)]
    places = [columns.index(name) if name in columns else -1 for name in base.wanted]
    if -1 in places:
        return
    pairs = {(spelled(user), spelled(item)) for user, item in table}
    rejected, n_good = _rejected(folder), 0
    for line in [first, *lines] if base.names else lines:
        fields = _fields_of(base, line.removesuffix("\r"))
        if len(fields) == len(columns):
            user, item, time, *rating = (fields[place] for place in places)
            is_good = moment_of(time)[0] == Verdict.GOOD and not is_missing(user) and not is_missing(item)
            n_good += is_good
            is_in = (spelled(user), spelled(item)) in pairs or (rating and rating[0][:1] not in "345")
            if is_good and not is_in and not any(value in text for text in rejected for value in (user, item, time)):
                yield f"lost: {line!r}"
    if n_good > n_rows:
        yield f"{n_rows} rows counted of {n_good}"


def _fields_of(base: Base, line: str) -> list[str]:
    """Split a line; return an empty list if a quote or an unusual character makes its fields doubtful."""
    fields = line.split(base.delimiter)
    if base.quote:
        fields = [field[1:-1] if len(field) > 1 and field[0] == field[-1] == '"' else field for field in fields]
    is_doubtful = any(mark in "".join(fields) for mark in '"\r\0') or not line.isascii()
    # The second line of a title may be part of a malformed record.
    is_doubtful |= line.startswith(csv_logs.SECOND_LINE)
    return [] if is_doubtful else fields


def _rejected(folder: Path) -> list[str]:
    rejects = rejects_of(folder / "out.parquet")
    if not rejects.exists():
        return []
    with rejects.open(encoding="utf-8", errors="replace", newline="") as file:
        return [row["value"] for row in csv.DictReader(file)]


def _invented(plain: bytes, table: Table) -> Iterator[str]:
    """Yield the users and items of the table that are not in the file."""
    text = "".join(plain.decode("utf-8", "surrogateescape").split('"'))
    for pair in table:
        for id_ in pair:
            if str(id_).replace('"', "") not in text and spelled(id_).lstrip("-") not in text:
                yield f"invented: {id_!r}"


def parquet_outcome(contents: bytes, folder: Path, *, is_sound: bool) -> str:
    """Build sequences from a Parquet file, and compare them with what pyarrow reads; returns the same as `outcome`."""
    log = folder / "log.parquet"
    log.write_bytes(contents)
    report, said = build(log, {}, folder)
    found = mutated_parquet.read(contents)
    if isinstance(report, str) and (report != "refused" or found is None):
        return report
    if found is None:
        return "a table of a file that pyarrow refuses"
    values, may_be_integers, is_doubtful = found
    expected = expected_of(values, may_be_integers=may_be_integers)
    if isinstance(report, str):
        is_clear = is_sound and not (expected.is_refused or expected.is_doubtful or is_doubtful or not expected.events)
        return f"WRONG: refused, though nothing is doubtful: {said[:400]}" if is_clear else report
    table = events_of(folder / "out.parquet")
    faults = [] if report.rows_read == len(values) else [f"rows read: {report.rows_read} instead of {len(values)}"]
    if expected.is_doubtful or is_doubtful:
        what = "nothing lost, nothing invented"
    else:
        what = "equal to an independent table"
        faults += ["a table of times in several units"] if expected.is_refused else differences(expected, report, table)
    return f"WRONG: {'; '.join(faults)[:500]}" if faults else what


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.CRITICAL)
    with (folder / "outcomes").open("w", encoding="utf-8") as outcomes:
        for number in range(int(sys.argv[3]), int(sys.argv[4])):
            base, done, contents = csv_logs.mutation(number) if kind == "csv" else mutated_parquet.mutation(number)
            name = base if isinstance(base, str) else base.name
            print(json.dumps({"number": number, "done": f"{name}: {done}"}), file=outcomes, flush=True)
            if isinstance(base, str):
                found = parquet_outcome(contents, folder, is_sound=number % 2 == 1)
            else:
                found = outcome(base, contents, folder, number)
            print(json.dumps({"number": number, "outcome": found}), file=outcomes, flush=True)


if __name__ == "__main__":
    main()
