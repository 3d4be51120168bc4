"""Publish a table in a process of its own, and print its peak memory: python -m tests.warehouse.publishing_process."""

import json
import sys
from datetime import date
from pathlib import Path

from batchrec.system.disk import file_sha256
from batchrec.targets import PublishedTable, open_target


def main(out: str, layout: str, recs: str, run_date: str) -> None:
    table = PublishedTable(Path(recs), date.fromisoformat(run_date), file_sha256(Path(recs)), "r1", "m1")
    assert layout in ("long", "nested")
    with open_target(out, "nested" if layout == "nested" else "long").replacing(table):
        pass
    # Not from getrusage: there a new process begins with the peak of the one that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    sys.stdout.write(json.dumps({"peak_bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
