"""Chunks of users, the unit of reading, scoring and writing: their size, and the threads that score them."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import pyarrow as pa

from batchrec.config import ScoringConfig
from batchrec.system.machine import n_cores

Chunk = TypeVar("Chunk")
Scored = TypeVar("Scored")

# On a CPU each core scores one chunk; a GPU is fed by two threads, so that the next batch is ready when one ends.
CHUNK_SIZE = {"cpu": 2048, "cuda": 16384}
_MIN_CHUNK_SIZE = 256
_MAX_CHUNK_SIZE = 1 << 16
_GPU_WORKERS = 2


class Users(Protocol):
    """Users with their histories: a sequences table, on the disk or in memory."""

    @property
    def n_users(self) -> int:
        """The number of users."""

    def batches(self, n_users: int) -> Iterator[pa.RecordBatch]:
        """Yield the users in batches of up to `n_users`."""


def n_workers(config: ScoringConfig, device: str) -> int:
    """Return how many chunks are scored at a time."""
    return config.workers or (_GPU_WORKERS if device == "cuda" else n_cores())


def read_chunks(table: Users, config: ScoringConfig, device: str) -> Iterator[pa.RecordBatch]:
    """Read the histories, chunk by chunk; a small table is several chunks too, so that every worker has one.

    A chunk for shards is larger: one shard keeps only its own users.
    """
    n_shards = 1 if config.part is None else config.part.n_shards
    share = max(_MIN_CHUNK_SIZE, table.n_users // n_shards // (4 * n_workers(config, device)))
    size = config.chunk_size or min(CHUNK_SIZE[device], share)
    return table.batches(max(size, min(size * n_shards, _MAX_CHUNK_SIZE)))


def in_order(
    chunks: Iterator[Chunk], score: Callable[[int, Chunk], Scored], workers: int
) -> Generator[Scored, None, None]:
    """Score chunks in threads, for onnxruntime releases Python's lock, and yield the results in the chunks' order.

    score: of a chunk and its number, from 0.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Scored]] = deque()
        try:
            for number, chunk in enumerate(chunks):
                waiting.append(pool.submit(score, number, chunk))
                # One more than are being scored: a worker that is done finds the next chunk read.
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # If the caller stops halfway, only the chunks that are being scored are waited for.
            pool.shutdown(cancel_futures=True)
