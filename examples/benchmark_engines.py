"""Throughput of score on Ray and on Spark with two workers, as a ratio of plain score with two threads.

Every run scores the same generated log by the same untrained model, in a process of its own; plain score runs before
each engine. The start of the cluster is timed separately, because a running cluster needs none. CPU
seconds are of all processes of a run (Linux): on a busy machine their ratio says more than that of the seconds.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq

from batchrec.benchmark.bench import ENCODER
from batchrec.benchmark.isolated import run_isolated
from batchrec.benchmark.models import write_untrained
from batchrec.benchmark.synthetic import Shape, write_ratings
from batchrec.config import EngineName, ScoringConfig, SequencesConfig
from batchrec.engines import scoring_engine
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences

WORKERS = 2


@dataclass(frozen=True)
class Run:
    """Seconds of the start of the cluster and of score, CPU seconds of score, and the load of the machine after it."""

    start: float
    score: float
    cpu: float
    load: float


class CpuSeconds(Thread):
    """Adds up the CPU seconds of this process and of all that it started, also of those that end meanwhile."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._mark, self._ticks, self._is_over = uuid4().hex, dict[str, int](), Event()
        # Every process that is started from now on has it in its environment.
        os.environ["BENCHMARK_OF_ENGINES"] = self._mark

    def run(self) -> None:
        """Look at the processes several times a second."""
        while not self._is_over.wait(0.2):
            self.look()

    def look(self) -> float:
        """Return the CPU seconds so far."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_own = self._mark.encode() in (process / "environ").read_bytes()
                if is_own or process.name == str(os.getpid()):
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    self._ticks[process.name] = int(fields[11]) + int(fields[12])
            except OSError:  # it has ended
                continue
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> float:
        """Return the CPU seconds, and look no more."""
        self._is_over.set()
        self.join()
        return self.look()


def timed(engine: EngineName, folder: Path) -> Run:
    """Start a cluster with two workers in this machine, if the engine needs one, and score."""
    cpu = CpuSeconds()
    cpu.start()
    started = time.perf_counter()
    start_cluster(engine)
    ready, cpu_before = time.perf_counter(), cpu.look()
    config = ScoringConfig(device="cpu", workers=WORKERS, engine=engine)
    out = folder / f"{engine}.parquet"
    score(folder / "sequences.parquet", folder / "model", config, out, engine=scoring_engine(engine))
    return Run(ready - started, time.perf_counter() - ready, cpu.stop() - cpu_before, os.getloadavg()[0])


def start_cluster(engine: EngineName) -> Any:
    """Start a local cluster, which the engine finds as the active one."""
    if engine == "ray":
        import ray  # noqa: PLC0415 - an extra

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        return ray.init(num_cpus=WORKERS, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)
    if engine == "spark":
        from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra

        os.environ["PYSPARK_PYTHON"] = sys.executable
        builder = SparkSession.builder.master(f"local-cluster[{WORKERS},1,700]").config("spark.executor.memory", "700m")
        builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.ui.enabled", "false")
        session = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        return session
    return None


def main() -> None:
    """Print a line per engine: seconds, users per second, and the ratio to plain score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--ratings-per-user", type=int, default=30)
    parser.add_argument("--engines", nargs="+", choices=["ray", "spark"], default=["ray", "spark"])
    options = parser.parse_args()
    shape = Shape(options.users, options.items, options.users * options.ratings_per_user)
    with TemporaryDirectory(prefix="batchrec-engines-") as name:
        folder = Path(name)
        run_isolated(write_ratings, shape, 0, folder / "ratings.csv")
        sequences = folder / "sequences.parquet"
        run_isolated(build_sequences, [str(folder / "ratings.csv")], SequencesConfig(), sequences)
        run_isolated(write_untrained, sequences, ENCODER, folder / "model")
        for engine in options.engines:
            plain: Run = run_isolated(timed, "local", folder).value
            run: Run = run_isolated(timed, engine, folder).value
            is_same = pq.read_table(folder / f"{engine}.parquet").equals(pq.read_table(folder / "local.parquet"))
            print(
                f"{engine}: {run}; plain: {plain}; ratio {plain.score / run.score:.2f}, with the start "
                f"{plain.score / (run.start + run.score):.2f}, of CPU seconds {plain.cpu / run.cpu:.2f}; "
                f"tables {'equal' if is_same else 'differ'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
