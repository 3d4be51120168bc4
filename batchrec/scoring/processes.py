"""Several GPUs of one machine: a process per GPU scores a shard, and the shards are merged."""

import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path

from batchrec.config import ScoringConfig, Shard
from batchrec.errors import ConfigError
from batchrec.scoring.engine import Engine
from batchrec.scoring.inputs import input_files
from batchrec.scoring.merging import merge, open_shards
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from batchrec.system import logs
from batchrec.system.atomic import check_output_file
from batchrec.system.temporaries import temporary_folder

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def score_file(  # noqa: PLR0913, PLR0917 - as for score
    sequences: Path,
    model: Path,
    config: ScoringConfig,
    out: Path,
    checkpoint_dir: Path | None,
    engine: Engine | None = None,
) -> ScoringReport:
    """Score as `score` does, with a process per GPU if config.gpus is more than one; these write no checkpoints.

    Raises the errors of `score`, and ConfigError if a process is killed, or if fewer GPUs are visible.
    """
    if config.gpus == 1:
        return score(sequences, model, config, out, checkpoint_dir, engine)
    on_gpus = replace(config, device="cuda")
    return score_in_processes(sequences, model, on_gpus, out, visible_gpus(config.gpus))


def visible_gpus(n_gpus: int) -> list[str]:
    """Return the first GPUs that this process may use, as CUDA names them. Raises ConfigError if it names fewer."""
    named = os.environ.get(_VISIBLE)
    gpus = [str(number) for number in range(n_gpus)] if named is None else [gpu for gpu in named.split(",") if gpu]
    if len(gpus) < n_gpus:
        raise ConfigError(f"--gpus {n_gpus}: {_VISIBLE} names {len(gpus)}. Pass {max(1, len(gpus))}, or unset it")
    return gpus[:n_gpus]


def score_in_processes(
    sequences: Path, model: Path, config: ScoringConfig, out: Path, gpus: Sequence[str]
) -> ScoringReport:
    """Score one shard per GPU, each in its own process, and merge them into `out`; gpus: the process's GPU each."""
    check_output_file(out, input_files(sequences, model, config))
    with temporary_folder(out) as folder:
        tasks = []
        for index, gpu in enumerate(gpus):
            shard = Shard(index, len(gpus))
            own = replace(config, shard=str(shard), gpus=1)
            # Kept in the config: it is the same in all processes, also at midnight.
            _ = own.night
            tasks.append(_Task(sequences, model, own, folder / shard.file_name, gpu, logs.log_format()))
        reports = _run_all(tasks)
        merged = merge(open_shards(folder), out)
    return replace(merged, seconds=round(max(report.seconds for report in reports) + merged.seconds, 3))


@dataclass(frozen=True)
class _Task:
    """The shard that a process scores."""

    sequences: Path
    model: Path
    config: ScoringConfig
    out: Path
    gpu: str
    log_format: logs.LogFormat


def _run_all(tasks: Sequence[_Task]) -> list[ScoringReport]:
    """Run each task in its own process. After the first error the other processes are stopped."""
    others = set(active_children())
    with ProcessPoolExecutor(len(tasks), get_context("spawn")) as pool:
        try:
            running = [pool.submit(_score, task) for task in tasks]
            wait(running, return_when=FIRST_EXCEPTION)
            return [future.result() for future in sorted(running, key=lambda future: not future.done())]
        except BaseException as error:
            for process in set(active_children()) - others:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise ConfigError(
                    f"--gpus {len(tasks)}: a process was killed, perhaps because memory ran out. Pass fewer GPUs"
                ) from error
            raise


def _score(task: _Task) -> ScoringReport:
    # Ctrl-C reaches all processes of a terminal: the first one stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[_VISIBLE] = task.gpu
    # Warnings of all processes would be the same.
    is_first = task.config.part is not None and task.config.part.index == 0
    with logs.logging_to_stderr(logging.INFO if is_first else logging.ERROR):
        logs.set_log_format(task.log_format)
        return score(task.sequences, task.model, task.config, task.out)
