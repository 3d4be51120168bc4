"""The scans of a log's files by the workers of Spark: each file is scanned whole, by the code of a local scan."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from batchrec.config import SequencesConfig
from batchrec.engines.shipping import outcome, result_of
from batchrec.errors import InputError
from batchrec.sequences.filters import remembers_left_out
from batchrec.sequences.log import Log, find_merged, leave_out_merged, open_files, refuse_lost_digits, refuse_quotes
from batchrec.sequences.scans import Scans, Typing, drop_scan, loaded_columns, view_events
from batchrec.sources import InputFile, MergedRecord, Reject, describe_error
from batchrec.tables.queries import connect, select

Result = TypeVar("Result")
_BATCH_EVENTS = 1 << 16


@dataclass(frozen=True)
class _FileScan:
    """The scan of one file: see the methods of Scans."""

    checks: list[dict[str, Any]]
    counts: Counter[str | None]
    malformed: list[Reject]
    merged: list[MergedRecord]


class SparkScans(Scans):
    """Scans by the workers of a Spark session; files: of the log, in order.

    Only examples for messages, and the rare check for dates that are written as numbers, are queries on this machine.
    """

    def __init__(self, spark: Any, con: duckdb.DuckDBPyConnection, log: Log) -> None:
        super().__init__(con, log, [])
        self.files = [file for source in log.sources for file in source.files]
        self._spark = spark
        self._scans: list[_FileScan] = []

    def has_quoted_fields(self) -> bool:
        """Return whether fields of a file may be quoted."""
        is_csv = any(source.is_csv for source in self.log.sources)
        return is_csv and any(self._in_files(_has_quoted_fields, self.files))

    def checks(self, typing: Typing) -> list[dict[str, Any]]:
        """Type all events, and return the rows of sql/sequences/load_checks.sql, file by file."""
        is_first, self.typing = not self._scans, typing
        self._scans = self._in_files(partial(_scan, typing), self.files)
        if is_first:
            self.merged = [record for scan in self._scans for record in scan.merged]
            leave_out_merged(self.con, self.log, self.merged)
        self.con.execute("drop view if exists loaded_events")
        drop_scan(self.con)
        view_events(self.con, self.log.config, typing)
        columns = loaded_columns(self.log.config)
        select(self.con, "sequences/loaded_events", columns=columns).create_view("loaded_events")
        return [row for scan in self._scans for row in scan.checks]

    def counts(self) -> Counter[str | None]:
        """Count the events by the reason why they are in no history; None: they are in one."""
        return sum((scan.counts for scan in self._scans), Counter())

    def malformed(self) -> list[Reject]:
        """Return the records that did not parse."""
        return sorted((reject for scan in self._scans for reject in scan.malformed), key=lambda reject: reject.file)

    def unusable(self, n_rows: int) -> Iterator[Reject]:
        """Yield up to n_rows events that cannot be used, in the order of the files."""
        used = {None, "before --since", "below --min-rating"}
        files = [file for file, scan in zip(self.files, self._scans, strict=True) if scan.counts.keys() - used]
        files = files[:n_rows]
        rejects = self._in_files(partial(_unusable, self.typing, n_rows), files)
        yield from [reject for of_file in rejects for reject in of_file][:n_rows]

    def _in_files(self, function: Callable[[Scans], Result], files: Sequence[InputFile]) -> list[Result]:
        """Return the result of a function for each file, in their order. Raises the error of the first file."""
        config = self.log.config
        tasks = self._spark.sparkContext.parallelize(files, len(files))
        outcomes = tasks.map(lambda file: outcome(_in_file, function, config, file)).collect()
        return [result_of(one) for one in outcomes]


def file_events(
    files: Sequence[InputFile], config: SequencesConfig, typing: Typing, numbers: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the typed events of files, by their numbers: user_id, item_id, moment, left_out."""
    for batch in numbers:
        for number in batch["id"].to_pylist():
            with connect(memory_limit=config.memory_limit, threads=1) as con:
                log = open_files(con, [files[number]], config)
                leave_out_merged(con, log, find_merged(con, log))
                view_events(con, config, typing)
                select(con, "sequences/loaded_events", columns=loaded_columns(config)).create_view("loaded_events")
                events = select(con, "sequences/history_events", remember=remembers_left_out(config))
                yield from events.to_arrow_reader(_BATCH_EVENTS)


def _in_file(function: Callable[[Scans], Result], config: SequencesConfig, file: InputFile) -> Result:
    """Call a function with the scans of one file, in a worker."""
    with connect(memory_limit=config.memory_limit, threads=1) as con:
        try:
            log = open_files(con, [file], config)
            return function(Scans(con, log, find_merged(con, log)))
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise InputError(f"{file}: {describe_error(error)}") from error


def _has_quoted_fields(scans: Scans) -> bool:
    return scans.log.has_quoted_fields


def _scan(typing: Typing, scans: Scans) -> _FileScan:
    refuse_lost_digits(scans.con, scans.log)
    refuse_quotes(scans.con, scans.log)
    leave_out_merged(scans.con, scans.log, scans.merged)
    return _FileScan(scans.checks(typing), scans.counts(), scans.malformed(), list(scans.merged))


def _unusable(typing: Typing, n_rows: int, scans: Scans) -> list[Reject]:
    leave_out_merged(scans.con, scans.log, scans.merged)
    scans.typing = typing
    return list(scans.unusable(n_rows))
