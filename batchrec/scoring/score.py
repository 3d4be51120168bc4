"""score: write the top k of every user to the recs table, chunk by chunk."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm

from batchrec.config import ScoringConfig
from batchrec.config.arguments import checked
from batchrec.errors import ConfigError, GateError
from batchrec.rules.table_check import BrokenRule, FinishedTable, check_rules
from batchrec.scoring.chunk_checkpoints import RANKING_BYTES, REASONS_BYTES, ChunkCheckpoint, open_checkpoints
from batchrec.scoring.chunks import in_order, n_workers
from batchrec.scoring.engine import Engine, ScoredChunks
from batchrec.scoring.inputs import ScoringInputs, input_files, read_inputs
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.scorer import Counts, ScoredChunk, open_scorer
from batchrec.scoring.shards import ShardUsers, shard_metadata, shard_schema, with_positions
from batchrec.system.atomic import check_output_file
from batchrec.system.checkpoints import CheckpointStore
from batchrec.system.logs import hides_bars
from batchrec.tables.parquet import write_parquet
from batchrec.tables.schemas import made_by

_log = logging.getLogger(__name__)

# Upper bounds of the bytes of a user and of a row in the table, compressed by zstd: measured on items drawn evenly from
# 62,423 with ids of 32 characters. Real tables take half, because few of their items are popular.
_USER_BYTES = 32
_ROW_BYTES = 10
_TITLED_ROW_BYTES = 16
_REASONS_ROW_BYTES = 16


@checked
def score(  # noqa: PLR0913, PLR0917 - the same at every caller
    sequences: Path | str = Path("sequences.parquet"),
    model: Path | str = Path("model"),
    config: ScoringConfig = ScoringConfig(),
    out: Path | str = Path("recs.parquet"),
    checkpoint_dir: Path | None = None,
    engine: Engine | None = None,
) -> ScoringReport:
    """Write the top k of every user to the recs table `out`: users in the order of the sequences, best item first.

    checkpoint_dir: a folder, made if need be, for a checkpoint of every chunk's ranking; a run that was killed resumes
    from there when it is called again in the same way. Nothing removes it. engine: scores on its workers, without
    checkpoints and carry-over; None scores by threads of this process.
    With config.shard, `out` is a shard (shards.py) of the same table, for `commit`.
    Raises InputError, ModelError, DeviceError or ConfigError for an invalid input, model, device or option, before any
    scoring unless it is a broken row far into the sequences, EngineError for a cluster that fails, and GateError for a
    table that breaks a rule or lacks users. Then `out` stays as it was.
    """
    started = time.monotonic()
    sequences, model, out = Path(sequences), Path(model), Path(out)
    check_output_file(out, input_files(sequences, model, config))
    if engine is None and config.engine != "local":
        name = config.engine
        raise ConfigError(f"--engine {name}: no engine is given. Pass engine=batchrec.engines.scoring_engine({name!r})")
    inputs = read_inputs(sequences, model, config)
    users = None if config.part is None else ShardUsers(config.part)
    if engine is None:
        schema, scored = _score_here(inputs, users, out, checkpoint_dir)
    else:
        _check_space(out, inputs.n_users, config, None)
        schema, scored = _of_one_schema(engine.score(inputs))

    def check(recs: Path) -> None:
        if users is None:  # those of shards are counted when they are merged
            totals.check_complete(inputs.n_users, out)
        broken = check_rules(FinishedTable(recs, sequences, inputs.listed, config.part), inputs.rules, config)
        # The rules and the popular items were read by the file's name, the histories from the file that was opened.
        inputs.table.check_same()
        _refuse_broken(broken, out)

    def report() -> ScoringReport:
        return ScoringReport(
            out=str(out),
            model_id=inputs.parts.model.manifest.model_id,
            device=made_by(schema.metadata)["device"],
            users=totals.n_users,
            eligible_items=int(inputs.parts.offer.rules.is_eligible.sum()),
            rule_rows=inputs.rule_rows,
            seconds=round(time.monotonic() - started, 3),
            **totals.figures(),
        )

    def metadata() -> dict[str, str]:
        return {} if users is None else shard_metadata(users, inputs, report())

    totals = _Totals()
    recs = _recs(scored, inputs.n_users // (1 if config.part is None else config.part.n_shards), totals)
    write_parquet(recs, schema, out, check, metadata)
    return _warned_of_empty_lists(report())


def _warned_of_empty_lists(report: ScoringReport) -> ScoringReport:
    """Return a report, with a warning in the log if rules leave more than half of the users without a list."""
    n_users = sum(report.emptied_by.values())
    if n_users > report.users / 2:
        rules = ", ".join(report.emptied_by)
        _log.warning("%s: %d of %d users have no list, because of %s", report.out, n_users, report.users, rules)
    return report


def _score_here(
    inputs: ScoringInputs, users: ShardUsers | None, out: Path, checkpoint_dir: Path | None
) -> tuple[pa.Schema, ScoredChunks]:
    """Return the schema of the recs and the chunks, which are scored by threads of this process; users: of a shard."""
    config, scorer = inputs.parts.config, open_scorer(inputs.parts)
    checkpoints = open_checkpoints(checkpoint_dir, inputs.parts.model.manifest, config, scorer.schema)
    # If most users are carried over, the checkpoints are small.
    _check_space(out, inputs.n_users, config, None if scorer.carries_over else checkpoints)

    def score_chunk(number: int, chunk: pa.RecordBatch) -> ScoredChunk:
        scored = scorer.score(chunk, None if checkpoints is None else ChunkCheckpoint(checkpoints, number))
        return scored if users is None else with_positions(scored, chunk)

    chunks = inputs.chunks(scorer.device)
    scored = in_order(chunks if users is None else users.chunks(chunks), score_chunk, n_workers(config, scorer.device))
    return scorer.schema if users is None else shard_schema(scorer.schema), scored


def _of_one_schema(chunks: ScoredChunks) -> tuple[pa.Schema, ScoredChunks]:
    """Return the schema of the first chunk of an engine, and all chunks.

    Raises ConfigError for a chunk that was made in another way, as by another device or version of onnxruntime.
    """
    first = next(chunks)
    schema = first.recs.schema

    def alike() -> ScoredChunks:
        with closing(chunks):
            for chunk in chain([first], chunks):
                if not chunk.recs.schema.equals(schema, check_metadata=True):
                    raise ConfigError(
                        f"--engine: workers differ: {made_by(chunk.recs.schema.metadata)} and "
                        f"{made_by(schema.metadata)}; expected one device and one version of onnxruntime. Make the "
                        "workers alike"
                    )
                yield chunk

    return schema, alike()


def _check_space(out: Path, n_users: int, config: ScoringConfig, checkpoints: CheckpointStore | None) -> None:
    """Raise ConfigError if the disk cannot hold the table, and the checkpoints next to it until it is complete."""
    n_rows = n_users * config.top_k
    row_bytes = (_TITLED_ROW_BYTES if config.items else _ROW_BYTES) + _REASONS_ROW_BYTES * config.explain
    needed = _USER_BYTES * n_users + row_bytes * n_rows
    if checkpoints is not None:
        ranking_bytes = RANKING_BYTES + REASONS_BYTES * config.explain
        needed += max(0, ranking_bytes * n_rows - checkpoints.n_bytes())
    free = shutil.disk_usage(Path(os.path.realpath(out)).parent).free
    if needed > free:
        raise ConfigError(
            f"{out}: needs up to {needed / 1e6:,.3f} MB, and {free / 1e6:,.3f} MB are free. Make room, or pass "
            "another --out"
        )


@dataclass
class _Totals:
    """The counts of all chunks that are scored so far."""

    n_users: int = 0
    counts: Counts = field(default_factory=Counts)

    def add(self, chunk: ScoredChunk) -> None:
        self.n_users += chunk.n_users
        self.counts += chunk.counts

    def check_complete(self, n_users: int, out: Path) -> None:
        """Raise GateError if fewer than n_users are scored."""
        if self.n_users < n_users:
            raise GateError(f"{self.n_users} of {n_users} users were scored: a bug. {out} stays as it was")

    def figures(self) -> dict[str, Any]:
        """Return the counts as fields of the report."""
        counts = {part.name: getattr(self.counts, part.name) for part in fields(self.counts)}
        return counts | {"emptied_by": dict(self.counts.emptied_by)}


def _recs(chunks: ScoredChunks, n_users: int, totals: _Totals) -> Iterator[pa.RecordBatch]:
    """Yield the recommendations of chunks, add their counts to the totals, and show the progress."""
    bar_of_users = tqdm(total=n_users, desc="score", unit="user", leave=False, disable=hides_bars())
    # If the writer stops halfway, the threads that score end before its error leaves the job.
    with closing(chunks), bar_of_users as bar:
        for chunk in chunks:
            totals.add(chunk)
            bar.update(chunk.n_users)
            yield chunk.recs


def _refuse_broken(rules: list[BrokenRule], out: Path) -> None:
    """Raise GateError if rows of the finished table break a rule."""
    for rule in rules:
        if rule.n_rows:
            raise GateError(f"{rule.n_rows} rows break {rule.rule} ({rule.example}): a bug. {out} stays as it was")
