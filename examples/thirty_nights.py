"""Simulate thirty nights of a shop, started as a scheduler would: before each, the log grows by a day's file.

The data is Online Retail (Chen, D., 2015, https://doi.org/10.24432/C5BW33), one CSV file per day up to
2011-12-09. One night gets only half of its files. Prints one line per night, and the number of mornings on which a
complete table was published.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

LAST = date(2011, 12, 9)
EVENTS = """\
select CustomerID as user_id, StockCode as item_id, InvoiceDate as timestamp
from read_csv('by-day/*.csv', types = {'InvoiceNo': 'varchar', 'StockCode': 'varchar'})
where CustomerID is not null and InvoiceNo not like 'C%' and Quantity > 0
"""
OPTIONS = """\
[build-sequences]
query = "events.sql"

[train]
max-minutes = 1.0
patience = 3

[run]
log-format = "json"
metrics-file = "batchrec.prom"
train-every = "7d"
# The shop is closed on Saturdays.
gate-max-age-days = 1.0
# A log that only grows is never shorter than last night's.
gate-min-input = 0.9
"""


@dataclass(frozen=True)
class Night:
    """One night: the exit code and report that the scheduler sees, and the table that readers find in the morning."""

    run_date: date
    exit_code: int
    report: dict[str, Any]
    is_whole: bool
    is_new: bool

    def __str__(self) -> str:
        seconds = {name: stage["seconds"] for name, stage in self.report["stages"].items()}
        model = self.report["models"][-1] if self.report["models"] else None
        checks = {check["figure"]: check for check in self.report["checks"]}
        overlap = checks.get("overlap with last night")
        n_passed = sum(check["passed"] for check in checks.values())
        parts = [
            f"{self.run_date:%a %Y-%m-%d}  exit {self.exit_code}",
            f"{self.report['seconds']:.0f} s ({', '.join(f'{name} {taken:.1f}' for name, taken in seconds.items())})",
            f"{_number(self.report['rows'])} rows, {_number(self.report['users'])} users, "
            f"{_number(self.report['users_carried_over'])} carried over",
            f"trained: {self.report['trained_because'] or 'no'}",
            f"NDCG@10 {model['ndcg_at_10']:.4f}, popularity {model['popularity_ndcg_at_10']:.4f}" if model else "",
            f"overlap {overlap['value']:.2f}" if overlap else "",
            f"gates {n_passed} of {len(checks)}",
            self.report["failed"] or "",
            f"out: {'a new table' if self.is_new else 'the table of the night before'}, "
            f"{'whole' if self.is_whole else 'BROKEN'}",
        ]
        return "; ".join(filter(None, parts))


def _number(count: int | None) -> str:
    return "no" if count is None else f"{count:,}"


def simulate(by_day: Path, folder: Path, n_nights: int, bad: int) -> Iterator[Night]:
    """Run the nights up to the last day of the data; night number `bad` (from 0) gets half of its files."""
    log, out = folder / "by-day", folder / "recs.parquet"
    log.mkdir(parents=True)
    (folder / "events.sql").write_text(EVENTS, encoding="utf-8")
    (folder / "batchrec.toml").write_text(OPTIONS, encoding="utf-8")
    before = b""
    for place in range(n_nights):
        run_date = LAST - timedelta(days=n_nights - 1 - place)
        deliver(by_day, log, run_date, is_half=place == bad)
        exit_code, report = run(folder, run_date)
        after = out.read_bytes() if out.exists() else b""
        yield Night(run_date, exit_code, report, is_whole(out), is_new=after != before)
        before = after


def deliver(by_day: Path, log: Path, run_date: date, is_half: bool) -> None:
    """Link the files of all days up to the run date into the log, or only every second one."""
    for link in log.iterdir():
        link.unlink()
    files = sorted(file for file in by_day.glob("*.csv") if file.stem <= str(run_date))
    for file in files[:: 2 if is_half else 1]:
        (log / file.name).symlink_to(file.resolve())


def run(folder: Path, run_date: date) -> tuple[int, dict[str, Any]]:
    """Run a night; return its exit code and report."""
    command = [shutil.which("batchrec") or "batchrec", "run", "--run-date", str(run_date), "--json"]
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    lines = done.stdout.splitlines()
    failed = folder / f"nights/failed/{run_date}.json"
    return done.returncode, json.loads(lines[-1] if lines else failed.read_text(encoding="utf-8"))


def is_whole(recs: Path) -> bool:
    """Return whether the table exists, and every list in it has ten different items at ranks 1 to 10."""
    if not recs.exists():
        return False
    lists = """
        select count(*) as n_lists, bool_and(ranks = range(1, 11) and n_items = 10) as are_whole
        from (
            select list_sort(list(rank)) as ranks, count(distinct item_id) as n_items
            from read_parquet($recs) group by user_id
        )
    """
    n_lists, are_whole = duckdb.connect().sql(lists, params={"recs": str(recs)}).fetchall()[0]
    return n_lists > 0 and bool(are_whole)


def main() -> None:
    """Simulate, print one line per night, and exit with 1 if a morning had no complete table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("by_day", type=Path, help="folder with Online Retail's files, one CSV per day")
    parser.add_argument("folder", type=Path, help="new folder for the shop")
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--bad", type=int, default=13, help="number, from 0, of the night that gets half of its files")
    given = parser.parse_args()
    nights = []
    for night in simulate(given.by_day, given.folder, given.nights, given.bad):
        nights.append(night)
        print(night, flush=True)
    n_new = sum(night.exit_code == 0 for night in nights)
    n_whole = sum(night.is_whole for night in nights)
    print(f"{len(nights)} nights: {n_new} published; a whole table was out on {n_whole} of {len(nights)} mornings")
    failed = [night for night in nights if night.exit_code not in (0, 99)]
    for night in failed:
        print(f"{night.run_date} failed with exit code {night.exit_code}: {night.report['failed']}")
    sys.exit(n_whole < len(nights))


if __name__ == "__main__":
    # One thread per process, as on a small machine shared with other jobs.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
