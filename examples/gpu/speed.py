"""Sections of gpu_check.py on time: score, what is not the model, train, and a catalogue of millions of items."""

import cProfile
import io
import pstats
import statistics
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from batchrec.arrays import Longs
from batchrec.config import EncoderShape, ScoringConfig, TrainingConfig
from batchrec.model.batching import Histories, scoring_tokens, seen_pairs, token_batches
from batchrec.model.directory import read_graph
from batchrec.model.ranker import Ranker, Ranking
from batchrec.scoring.chunks import n_workers
from batchrec.scoring.inputs import read_inputs
from batchrec.scoring.scorer import batch_limits, open_scorer
from batchrec.tables.parquet import write_parquet
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training import wide_top_k
from batchrec.training.default_sizes import encoder_shape
from batchrec.training.encoder import Encoder
from batchrec.training.export import write_encoder
from batchrec.training.trainer import Trainer
from batchrec.training.windows import Batch, draw_batches
from examples.gpu.workspace import Row, Workspace, timed, watched

_TOP, _OPERATIONS = 15, 12
_TOP_K = 100
_MAX_TOKENS = 1 << 18


def score(workspace: Workspace) -> Iterator[Row]:
    """Time `score` with the model of `bench`, with and without a blend, and with a graph that answers at once."""
    yield _scored(workspace, "first run, fp32, top 100", [workspace.score_seconds(workspace.plain, top_k=_TOP_K)])
    yield from (Row(what, f"{seconds:.1f} s", seconds) for what, seconds in workspace.seconds.items())
    blended = {
        "blend of popularity and neighbours": (workspace.with_neighbours, {}),
        "blend with habit, seen items allowed": (workspace.with_habit, {"seen": "allow"}),
    }
    seconds: dict[str, list[float]] = {"plain": [], **{name: [] for name in blended}}
    for _ in range(workspace.sizes.repeats):
        for name, (model, options) in {"plain": (workspace.plain, {}), **blended}.items():
            seconds[name].append(workspace.score_seconds(model, top_k=_TOP_K, **options))
    for name, own in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(own, seconds["plain"], strict=True))
        row = _scored(workspace, f"fp32, top 100, {name}", own)
        yield row._replace(figure=f"{row.figure}, {ratio:.2f} times plain")
    runs: list[tuple[str, Path, dict[str, Any]]] = [
        ("fp32, top 10, plain", workspace.plain, {"top_k": 10}),
        *((f"all but the model, top 100, workers {n}", workspace.instant, {"workers": n}) for n in (1, 2, 4, 8)),
        ("all but the model, top 100, device cpu, as in `bench`", workspace.instant, {"device": "cpu"}),
        ("fp16, top 100, plain", workspace.plain, {"precision": "fp16"}),
    ]
    for name, model, options in runs:
        repeated = [
            workspace.score_seconds(model, **{"top_k": _TOP_K, **options}) for _ in range(workspace.sizes.repeats)
        ]
        yield _scored(workspace, name, repeated)


def _scored(workspace: Workspace, what: str, seconds: list[float]) -> Row:
    median = statistics.median(seconds)
    users = workspace.sizes.log.users / median
    times = "" if len(seconds) == 1 else f", median of {len(seconds)}"
    return Row(what, f"{median:.2f} s{times}, {users:,.0f} users/s", median)


def host(workspace: Workspace) -> Iterator[Row]:
    """Run the steps of `score` one by one in one thread, with the graph that answers at once; then profile."""
    config = ScoringConfig(top_k=_TOP_K, device=workspace.device)
    sequences, model = workspace.sequences, workspace.instant
    seconds, inputs = timed(read_inputs, sequences, model, config)
    yield _step("load the model, open the sequences", seconds)
    seconds, scorer = timed(open_scorer, inputs.parts)
    yield _step("open the session", seconds)
    seconds, chunks = timed(lambda: list(inputs.chunks(scorer.device)))
    yield _step("read the histories", seconds)
    scorer.score(chunks[0])  # the first run sets up the device
    seconds, scored = timed(lambda: [scorer.score(chunk).recs for chunk in chunks])
    yield _step("score: indexes, digests, batches, columns", seconds)
    seconds, _ = timed(write_parquet, iter(scored), scorer.schema, workspace.folder / "host.parquet")
    yield _step("write the table", seconds)
    profiler = cProfile.Profile()
    for chunk in chunks[: 1 + len(chunks) // 4]:
        profiler.runcall(scorer.score, chunk)
    for order in ("cumulative", "tottime"):
        text = io.StringIO()
        pstats.Stats(profiler, stream=text).strip_dirs().sort_stats(order).print_stats(_TOP)
        table = text.getvalue().partition("   ncalls")[2].rstrip()
        yield Row(f"profile of a quarter of the scoring, by {order}", "   ncalls" + table)


def _step(what: str, seconds: float) -> Row:
    return Row(f"one thread: {what}", f"{seconds:.2f} s", seconds)


def train(workspace: Workspace) -> Iterator[Row]:
    """Time steps of training on the log, making batches alone, and what the device runs in a step."""
    config = TrainingConfig(hidden_size=128, max_len=200, batch_size=256, negatives=3000, precision="bf16")
    histories, size = workspace.corpus.histories, workspace.corpus.vocabulary.size
    torch.manual_seed(0)
    encoder = Encoder(size, encoder_shape(config, histories)).to(workspace.device)
    trainer, batches = Trainer(encoder, config), _Batches(histories, size, encoder.shape, config)
    for what, n in (("first batch of an epoch", 1), ("batches alone", 5 * workspace.sizes.steps)):
        started = time.perf_counter(), batches.n_labels
        n_made = sum(1 for _ in islice(batches, n))
        seconds, labels = time.perf_counter() - started[0], batches.n_labels - started[1]
        figure = f"{1000 * seconds / n_made:.1f} ms per batch, {labels / seconds / 1e6:.2f} M events/s"
        yield Row(f"{what}, one host thread", figure, seconds / n_made)
    # Until steps of nearly all shapes are captured.
    n_first = 5 * workspace.sizes.steps
    seconds, _ = timed(trainer.take_steps, islice(batches, n_first))
    yield Row(f"first {n_first} steps", f"{seconds:.2f} s", seconds)
    batches.reset()
    end = time.perf_counter() + workspace.sizes.seconds
    with watched("utilization.gpu") as busy:
        seconds, _ = timed(trainer.take_steps, batches, lambda _: time.perf_counter() > end)
    wall = seconds / batches.n_batches
    rate, share = batches.n_labels / seconds, batches.seconds / seconds
    yield Row("training", f"{rate / 1e6:.2f} M events/s, {1000 * wall:.2f} ms per step", rate)
    yield Row("share of that time in which the host makes batches", f"{share:.0%}", share)
    if busy:
        yield Row("GPU utilization by nvidia-smi, mean", f"{statistics.mean(busy):.0f} %", statistics.mean(busy))
    yield from _profiled(trainer, batches, workspace, wall)


class _Batches:
    """An endless iterator over batches, epoch after epoch, that counts them, their labels and its own seconds."""

    def __init__(self, histories: Histories, size: int, shape: EncoderShape, config: TrainingConfig) -> None:
        self._batches = self._endless(histories, size, shape, config)
        self.reset()

    def reset(self) -> None:
        """Count from 0."""
        self.n_batches, self.n_labels, self.seconds = 0, 0, 0.0

    def __iter__(self) -> "_Batches":
        return self

    def __next__(self) -> Batch:
        started = time.perf_counter()
        batch = next(self._batches)
        self.n_batches, self.seconds = self.n_batches + 1, self.seconds + time.perf_counter() - started
        self.n_labels += batch.n_labels
        return batch

    @staticmethod
    def _endless(
        histories: Histories, size: int, shape: EncoderShape, config: TrainingConfig
    ) -> Generator[Batch, None, None]:
        generator = np.random.default_rng(0)
        while True:
            yield from draw_batches(histories, size, shape, config, generator)


def _profiled(trainer: Trainer, batches: _Batches, workspace: Workspace, wall: float) -> Iterator[Row]:
    """Profile some steps; wall: seconds of a step without the profiler."""
    steps, is_cuda = workspace.sizes.steps, workspace.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as profiler:
        trainer.take_steps(islice(batches, steps))
    events: list[Any] = list(profiler.key_averages())
    if is_cuda:
        # Ranges such as that of the optimizer are listed next to the kernels inside them.
        kernels = [
            event
            for event in events
            if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
        ]
        busy = sum(event.self_device_time_total for event in kernels) / 1e6 / steps
        n_kernels = sum(event.count for event in kernels) / steps
        figure = f"{busy / wall:.0%}: {1000 * busy:.2f} of {1000 * wall:.2f} ms, {n_kernels:.0f} kernels and copies"
        yield Row("share of a step in which the GPU is busy", figure, busy / wall)
        yield _operations("kernels by time per step", kernels, "self_device_time_total", steps)
    on_host = [event for event in events if event.device_type.name == "CPU"]
    time_of = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    yield _operations("operations by time per step", on_host, time_of, steps)


def _operations(what: str, events: list[Any], time_of: str, steps: int) -> Row:
    longest = sorted(events, key=lambda event: -getattr(event, time_of))[:_OPERATIONS]
    lines = [
        f"{getattr(event, time_of) / 1000 / steps:9.3f} ms {event.count / steps:7.1f} x  {event.key[:90]}"
        for event in longest
    ]
    return Row(what, "\n".join(lines))


def many_items(workspace: Workspace) -> Iterator[Row]:
    """Time the ranking of millions of items: by the batches of score, and last with more rows per run of the model."""
    n_users, size = workspace.sizes.many_users, workspace.sizes.many_items + FIRST_ITEM
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 200, n_users)
    items = generator.integers(FIRST_ITEM, size, lengths.sum()).astype(np.int32)
    histories = Histories(items, np.concatenate([[0], np.cumsum(lengths)]))
    if workspace.device == "cuda":
        torch.cuda.empty_cache()
    folder, (_, rows) = workspace.folder / "many", batch_limits(workspace.device, size)
    folder.mkdir(exist_ok=True)
    for hidden_size in (64, 128):
        shape = EncoderShape("causal", 128, hidden_size, 2, 4, 0.0)
        name = f"{workspace.sizes.many_items:,} items, d{hidden_size}"
        torch.manual_seed(0)
        seconds, _ = timed(write_encoder, Encoder(size, shape).eval(), folder)
        n_bytes = sum(file.stat().st_size for file in folder.iterdir())
        yield Row(f"{name}: export", f"{seconds:.1f} s, {n_bytes / 1e9:.2f} GB", seconds)
        with watched("memory.used") as used:
            seconds, ranker = timed(lambda: Ranker(read_graph(folder), workspace.device, scores_pairs=False))
            yield Row(f"{name}: open the graph", f"{seconds:.1f} s", seconds)
            for top_k in (_TOP_K, 10):
                yield _ranked(name, ranker, histories, shape, top_k, rows)
        peak = max(used, default=0.0)
        yield Row(f"{name}: peak GPU memory", f"{peak:,.0f} MiB" if used else "not measured", peak)
        if hidden_size == 128:
            for other_rows in (max(1, rows // 8), 2 * rows):
                yield _ranked(name, ranker, histories, shape, _TOP_K, other_rows)
        del ranker
    with patch.object(wide_top_k, "WIDE", size):
        write_encoder(Encoder(size, shape).eval(), folder)
    ranker = Ranker(read_graph(folder), workspace.device, scores_pairs=False)
    yield _ranked(f"{name}, by TopK alone", ranker, histories, shape, _TOP_K, rows)


def _ranked(  # noqa: PLR0913, PLR0917 - the sizes of a run
    name: str, ranker: Ranker, histories: Histories, shape: EncoderShape, top_k: int, rows: int
) -> Row:
    """Time the ranking of all users, in batches of up to `rows`, by as many threads as score has on a GPU."""
    lengths = np.minimum(histories.lengths, shape.max_len)
    batches = list(token_batches(lengths, _MAX_TOKENS, rows))

    def rank(users: Longs) -> Ranking:
        return ranker.rank(scoring_tokens(histories, users, shape), seen_pairs(histories, users), top_k)

    # Allocates memory before the clock starts: the first batch has the most rows, the last one the longest histories.
    for users in (batches[0], batches[-1]):
        rank(users)
    with ThreadPoolExecutor(n_workers(ScoringConfig(), "cuda")) as pool:
        seconds, _ = timed(lambda: [len(ranking.items) for ranking in pool.map(rank, batches)])
    rate = len(histories) / seconds
    return Row(f"{name}: top {top_k}, up to {rows} rows per run", f"{rate:,.0f} users/s", rate)
