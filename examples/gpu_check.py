"""Check a GPU: its results against the CPU's, its throughput, and where the time is spent.

Writes gpu-check.md, with tables for docs/gpu.md, and gpu-check.json, both again after every figure. batchrec need not
be installed. An error in one section is printed, and the other sections still run; the exit code is then 1.
"""

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batchrec.system.machine import n_cores
from examples.gpu import parity, speed
from examples.gpu.workspace import FULL, TINY, Row, Workspace, nvidia_smi

SECTIONS: dict[str, Callable[[Workspace], Iterator[Row]]] = {
    "doctor": parity.doctor,
    "parity": parity.parity,
    "ties": parity.ties,
    "score": speed.score,
    "host": speed.host,
    "train": speed.train,
    "many-items": speed.many_items,
}


class TimeIsUpError(BaseException):
    """The time of --max-minutes is over. No Exception, so that no section takes it for an error of its own."""


@dataclass
class Report:
    """The outcome of every section that was started, and the files that hold it."""

    folder: Path
    machine: dict[str, str]
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, name: str, workspace: Workspace) -> None:
        """Run a section, and write its rows and its error, if any, as soon as they are known."""
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        rows: list[dict[str, Any]] = []
        outcome = self.sections[name] = {"rows": rows, "seconds": 0.0, "error": None}
        try:
            for row in SECTIONS[name](workspace):
                rows.append(row._asdict())
                print(f"{row.what}:{chr(10) if chr(10) in row.figure else ' '}{row.figure}", flush=True)
                self.write()
        except (Exception, TimeIsUpError) as error:
            outcome["error"] = _last_line(error)
            print(f"{name} failed: {outcome['error']}", flush=True)
            if isinstance(error, TimeIsUpError):
                raise
        finally:
            outcome["seconds"] = round(time.perf_counter() - started, 1)
            print(f"-- {name}: {outcome['seconds']} s", flush=True)
            self.write()

    def write(self) -> None:
        """Write both files."""
        contents = {"machine": self.machine, "sections": self.sections}
        (self.folder / "gpu-check.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
        (self.folder / "gpu-check.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """Return a table per section; a figure of several lines is a block of text below it."""
        lines = [", ".join(f"{name} {value}" for name, value in self.machine.items() if value) + "."]
        for name, outcome in self.sections.items():
            short = [row for row in outcome["rows"] if "\n" not in row["figure"]]
            lines += ["", f"### {name}, {outcome['seconds']:.0f} s", "", "| | |", "|---|---|"]
            lines += [f"| {row['what']} | {row['figure']} |" for row in short]
            if outcome["error"]:
                lines.append(f"| error | {outcome['error'].replace('|', '/')} |")
            for row in outcome["rows"]:
                if row not in short:
                    lines += ["", f"{row['what']}:", "", "```text", row["figure"], "```"]
        return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections and return the exit code: 1 if one failed or the time was up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu-check.md and gpu-check.json")
    parser.add_argument("--max-minutes", type=float, default=8.0, help="stop after this time")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="device to check")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script itself")
    options = parser.parse_args(arguments)
    # Progress bars would hide the lines that this script prints.
    os.environ["TQDM_DISABLE"] = "1"
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report(options.out, _machine(is_tiny=options.tiny))
    print(report.markdown(), flush=True)
    former = signal.signal(signal.SIGALRM, _end_of_time)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.max_minutes)
    is_up = False
    try:
        with TemporaryDirectory(prefix="batchrec-gpu-check-") as folder:
            workspace = Workspace(Path(folder), options.device, TINY if options.tiny else FULL)
            for name in options.only or SECTIONS:
                report.run(name, workspace)
    except TimeIsUpError:
        is_up = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    return int(is_up or any(outcome["error"] for outcome in report.sections.values()))


def _machine(*, is_tiny: bool) -> dict[str, str]:
    return {
        "GPU": nvidia_smi("name") or "none",
        "driver": nvidia_smi("driver_version"),
        "CPU cores": str(n_cores()),
        "torch": _version("torch"),
        "onnxruntime": _version("onnxruntime-gpu") or _version("onnxruntime"),
        "duckdb": _version("duckdb"),
        "batchrec": _commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "sizes": "tiny" if is_tiny else "",
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    try:
        command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _end_of_time(*_: object) -> None:
    raise TimeIsUpError("--max-minutes is over")


def _last_line(error: BaseException) -> str:
    """Return the last line of a traceback, and the place in the code that it belongs to."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]} ({Path(place.filename).name}:{place.lineno})"


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
