"""score on a Spark cluster: each chunk is a job of one task, mapped by mapInArrow in a Python worker."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa

from batchrec.engines.scoring_workers import ScoringWorker, chunks_of, shared_by
from batchrec.engines.shipping import result_of
from batchrec.engines.spark_session import spark_session
from batchrec.scoring.chunks import in_order
from batchrec.scoring.engine import ScoredChunks
from batchrec.scoring.inputs import ScoringInputs
from batchrec.scoring.scorer import ScoredChunk

# Chunks in flight per core: while the result of one is on its way, the next one is scored.
_CHUNKS_PER_CORE = 2


@dataclass(frozen=True)
class SparkEngine:
    """Scores on the cluster of the Spark session: the active one, or that of spark-submit."""

    def score(self, inputs: ScoringInputs) -> ScoredChunks:
        """Yield the chunks of the inputs, scored, in their order.

        Raises ConfigError if pyspark is not installed, EngineError if the cluster cannot be reached or fails, and the
        errors of scoring.
        """
        with spark_session() as spark:
            n_cores = spark.sparkContext.defaultParallelism
            # GPUs are used only if asked for: Spark does not say here which of its workers have one.
            device: Literal["cuda", "cpu"] = "cuda" if inputs.parts.config.device == "cuda" else "cpu"
            shared = shared_by(inputs, n_cores, device)
            parts = spark.sparkContext.broadcast(shared.parts)
            score = _ChunkScoring(parts, uuid4().hex)

            def score_chunk(_: int, chunk: bytes) -> ScoredChunk:
                row = spark.createDataFrame(pa.table({"chunk": [chunk]}), "chunk binary")
                scored: ScoredChunk = result_of(bytes(row.mapInArrow(score, "scored binary").collect()[0][0]))
                return scored

            try:
                yield from in_order(chunks_of(shared, device), score_chunk, _CHUNKS_PER_CORE * n_cores)
            finally:
                parts.destroy()


class _ChunkScoring:
    """The function of mapInArrow; parts: the broadcast ScorerParts. run: a name of this scoring."""

    # Spark keeps its Python workers: each opens one Scorer per scoring.
    _workers: dict[str, ScoringWorker] = {}  # noqa: RUF012 - of the worker's process

    def __init__(self, parts: Any, run: str) -> None:
        self._parts, self._run = parts, run

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the outcome of each chunk."""
        if self._run not in self._workers:
            self._workers.clear()
            self._workers[self._run] = ScoringWorker(self._parts.value)
        for batch in batches:
            scored = [self._workers[self._run].score(chunk.as_py()) for chunk in batch["chunk"]]
            yield pa.record_batch({"scored": pa.array(scored, pa.binary())})
