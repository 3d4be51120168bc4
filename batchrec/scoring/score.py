"""score: the top k of every user, chunk by chunk, into the recs table."""

import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from batchrec.config import ScoringConfig
from batchrec.errors import ConfigError, GateError
from batchrec.model.directory import load_model
from batchrec.model.ranker import Ranker
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rule_tables import read_rule_tables
from batchrec.rules.table_check import FinishedTable, check_rules
from batchrec.scoring.chunk_checkpoints import RANKING_BYTES, KeptRanking, open_progress
from batchrec.scoring.known_items import check_knows
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import Counts, ScoredChunk, Scorer
from batchrec.scoring.user_list import read_user_list
from batchrec.system.atomic import check_no_input, check_writable_file
from batchrec.system.checkpoints import Progress
from batchrec.system.logs import no_bars
from batchrec.system.machine import n_cores
from batchrec.tables.ids import without_blanks
from batchrec.tables.parquet import write_parquet
from batchrec.tables.sequences_table import Sequences, no_items, open_sequences

# A chunk is the unit of reading, scoring and writing. On a CPU each core works on one; a GPU is fed by two threads, so
# that the next batch is ready before the last has ended.
_CHUNK_SIZE = {"cpu": 2048, "cuda": 16384}
_LEAST_CHUNK_SIZE = 256
_GPU_WORKERS = 2
# Bounds of what a user and a row take in the table, measured on items drawn evenly from 62,423 with ids of 32
# characters, by zstd: real ones, of which few are popular, take half.
_USER_BYTES = 32
_ROW_BYTES = 10
_TITLED_ROW_BYTES = 16


@dataclass(frozen=True)
class ScoringReport:
    """Who got what: users = by the model + by popularity + skipped, all of whose items they have seen, + emptied.

    emptied_by: users without a list by the rule, as its option, that left them nothing.
    eligible_items: what rules let anybody get of the model's items and the pins. rule_rows: of each rule table, by the
    option that names it.
    """

    out: str
    model_id: str
    device: str
    users: int
    users_by_model: int
    users_by_popularity: int
    users_skipped_all_seen: int
    emptied_by: dict[str, int]
    users_with_fewer_than_top_k: int
    users_carried_over: int
    eligible_items: int
    rule_rows: dict[str, int]
    unknown_items_in_histories: int
    rows: int
    seconds: float


def score(
    sequences: Path = Path("sequences.parquet"),
    model: Path = Path("model"),
    config: ScoringConfig = ScoringConfig(),
    out: Path = Path("recs.parquet"),
    progress: Path | None = None,
) -> ScoringReport:
    """Write the top k of every user to the recs table `out`: users in the order of the sequences, best item first.

    progress: a folder, made if need be, in which the ranking of every chunk is kept; a run that was killed goes on from
    there when it is called again in the same way. Nothing removes it.
    Raises InputError, ModelError, DeviceError or ConfigError where an input, the model, the device or an option is not
    as it must be; all but a broken row far into the sequences is found before any scoring. Then `out` stays as it was.
    """
    started = time.monotonic()
    check_no_input(out, [sequences, *config.files.values()])
    check_writable_file(out)
    loaded = load_model(model)
    n_items = len(loaded.vocabulary)
    if config.top_k > n_items:
        raise ConfigError(f"--top-k {config.top_k}: the model knows {n_items} items. Pass {n_items} or less")
    table = open_sequences(sequences)
    check_knows(loaded.vocabulary, model, table)
    listed = read_user_list(config.users, table.user_type, config.night, sequences) if config.users else None
    known = KnownIds(loaded.vocabulary, table.user_type, sequences, listed, config.allow_empty_rules)
    known.warn_of_listed("--users")
    rules = read_rule_tables(config)
    offer = read_offer(known, config, rules)
    ranker = Ranker(loaded.encoder, config.device, config.precision, offer.item_offsets)
    scorer = Scorer(loaded, ranker, table.user_type, config, offer)
    workers = config.workers or (_GPU_WORKERS if ranker.device == "cuda" else n_cores())
    # A small table is several chunks too, so that every worker has one.
    share = max(_LEAST_CHUNK_SIZE, table.n_users // (4 * workers))
    chunks = table.batches(config.chunk_size or min(_CHUNK_SIZE[ranker.device], share))
    if listed is not None:
        chunks = _only(listed, chunks, table)
    elif offer.popular.segments is not None:
        chunks = _and_strangers(offer.popular.segments.user_ids, chunks, table)
    n_users = table.n_users if listed is None else len(listed)
    kept = open_progress(progress, loaded.manifest, config, scorer.schema)
    # Where most are carried over, little is kept.
    _check_space(out, n_users, config, None if scorer.carries_over else kept)
    counts, n_scored = Counts(), 0

    def recs() -> Iterator[pa.RecordBatch]:
        nonlocal counts, n_scored
        with tqdm(total=n_users, desc="score", unit="user", leave=False, disable=no_bars()) as bar:
            for chunk in _in_order(scorer, chunks, workers, kept):
                counts += chunk.counts
                n_scored += chunk.n_users
                bar.update(chunk.n_users)
                yield chunk.recs

    def check(recs: Path) -> None:
        broken = check_rules(FinishedTable(recs, sequences, listed), rules, config)
        # Popular items, known ids and rules are read by the file's name; the histories from the file that was opened.
        table.check_same()
        for rule in broken:
            if rule.n_rows:
                raise GateError(f"{rule.n_rows} rows break {rule.rule} ({rule.example}): a bug. {out} stays as it was")

    write_parquet(recs(), scorer.schema, out, check)
    return ScoringReport(
        out=str(out),
        model_id=loaded.manifest.model_id,
        device=ranker.device,
        users=n_scored,
        eligible_items=int(offer.rules.is_eligible.sum()),
        rule_rows={option: len(table.rows) for option, table in rules.items()},
        seconds=round(time.monotonic() - started, 3),
        **{part.name: getattr(counts, part.name) for part in fields(counts)} | {"emptied_by": dict(counts.emptied_by)},
    )


def _check_space(out: Path, n_users: int, config: ScoringConfig, kept: Progress | None) -> None:
    """Raise ConfigError where the disk cannot hold the table, and the progress beside it until the table is there."""
    n_rows = n_users * config.top_k
    needed = _USER_BYTES * n_users + (_TITLED_ROW_BYTES if config.items else _ROW_BYTES) * n_rows
    if kept is not None:
        needed += max(0, RANKING_BYTES * n_rows - kept.n_bytes())
    free = shutil.disk_usage(Path(os.path.realpath(out)).parent).free
    if needed > free:
        raise ConfigError(
            f"{out}: needs up to {needed / 1e6:,.3f} MB, and {free / 1e6:,.3f} MB are free. Make room, or pass "
            "another --out"
        )


def _in_order(
    scorer: Scorer, chunks: Iterator[pa.RecordBatch], workers: int, progress: Progress | None
) -> Iterator[ScoredChunk]:
    """Score chunks in threads, onnxruntime letting go of Python's lock, and yield them in the order they came in."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[ScoredChunk]] = deque()
        try:
            for number, chunk in enumerate(chunks):
                kept = None if progress is None else KeptRanking(progress, number)
                waiting.append(pool.submit(scorer.score, chunk, kept))
                # One more than are worked on: a worker that is done finds the next chunk read.
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Who stops halfway waits for the chunks that are worked on alone.
            pool.shutdown(cancel_futures=True)


def _only(listed: pa.Array, chunks: Iterator[pa.RecordBatch], table: Sequences) -> Iterator[pa.RecordBatch]:
    """Keep the listed users of each chunk; those of whom there is no history come last, with an empty one."""
    is_found = np.zeros(len(listed), dtype=bool)
    for chunk in chunks:
        places = pc.index_in(without_blanks(chunk["user_id"]), value_set=listed)
        is_found[places.drop_null().to_numpy()] = True
        yield chunk.filter(places.is_valid())
    yield _strangers(listed.filter(pa.array(~is_found)), table)


def _and_strangers(others: pa.Array, chunks: Iterator[pa.RecordBatch], table: Sequences) -> Iterator[pa.RecordBatch]:
    """Let those others of whom there is no history follow the chunks, with an empty one."""
    is_found = np.zeros(len(others), dtype=bool)
    for chunk in chunks:
        is_found[pc.index_in(without_blanks(chunk["user_id"]), value_set=others).drop_null().to_numpy()] = True
        yield chunk
    yield _strangers(others.filter(pa.array(~is_found)), table)


def _strangers(strangers: pa.Array, table: Sequences) -> pa.RecordBatch:
    nothing = [no_items(len(strangers), field.type) for field in table.schema if field.name != "user_id"]
    return pa.record_batch([strangers, *nothing], schema=table.schema)
