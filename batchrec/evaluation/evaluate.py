"""The evaluate job: train on a part of the log, score the tested users, and compare with tables and simple methods.

Popularity here answers: how popular are the items that a method recommends (mean_popularity_rank)? Items are ranked by
their events in the training part (sql/evaluation/training_items.sql).
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from batchrec.config import EvaluationConfig, ScoringConfig, TrainingConfig, Validation
from batchrec.config.arguments import checked
from batchrec.errors import ConfigError
from batchrec.evaluation import als
from batchrec.evaluation.baselines import Baselines
from batchrec.evaluation.bootstrap import compare
from batchrec.evaluation.given_tables import given_lists
from batchrec.evaluation.metrics import MethodMetrics, measure_lists
from batchrec.evaluation.report import EvaluatedModel, EvaluationReport, pairs, question_of, results
from batchrec.evaluation.splits import LogSplit, split_sequences
from batchrec.evaluation.verdicts import verdicts
from batchrec.scoring.score import score
from batchrec.sources import local_path_of
from batchrec.system import logs
from batchrec.system.atomic import check_output_file, replacing
from batchrec.system.json_text import to_json
from batchrec.system.temporaries import temporary_folder
from batchrec.tables.log_end import iso_time
from batchrec.tables.parquet import write_parquet
from batchrec.tables.queries import connect
from batchrec.tables.schemas import evaluation_schema, lists_schema
from batchrec.tables.sequences_table import open_sequences
from batchrec.training.train import train

_log = logging.getLogger(__name__)

_MODEL = "model"
# Name of a method -> its lists, computed when read.
Lists = dict[str, Iterator[pa.RecordBatch]]


@checked
def evaluate(
    sequences: Path | str = Path("sequences.parquet"),
    evaluation: EvaluationConfig = EvaluationConfig(),
    training: TrainingConfig = TrainingConfig(),
    out: Path | str = Path("evaluation.parquet"),
) -> EvaluationReport:
    """Measure the model, tables and baselines on the log itself; write the evaluation table, and the report as JSON.

    The model is trained and scored by `train` and `score`, as in a nightly run. Before training, raises InputError if
    the sequences break their contract, the protocol cannot split them, or a table of --recs cannot be used, and
    ConfigError if `out` cannot be written or k exceeds the number of items; later whatever `train` and `score` raise.
    Then `out` stays as it was.
    """
    started = time.monotonic()
    sequences, out = Path(sequences), Path(out)
    inputs = [str(sequences), *evaluation.recs, *([] if evaluation.split is None else [evaluation.split])]
    json_out = _check_outs(out, [local_path_of(file) for file in inputs])
    if training.init_from is not None:
        raise ConfigError("--init-from: that model may have learned the test items. Evaluate without it")
    log = open_sequences(sequences)
    with temporary_folder(out.parent / "batchrec") as folder, connect(folder) as con:
        split = split_sequences(con, log, evaluation, training.seed, folder)
        schema = lists_schema(log.user_type, log.item_type)
        tables, simple = _tables(con, schema, evaluation), _baselines(con, schema, evaluation, training.seed)
        for name in tables.keys() & {_MODEL, *simple}:
            raise ConfigError(f"--recs {name}: a method has that name. Pass ./{name}")
        # Tables first: one that cannot be used is an error before anything takes long.
        contenders = _measure(con, tables, schema, evaluation, folder)
        baselines = _measure(con, simple, schema, evaluation, folder)
        trained = None
        if not evaluation.no_model:
            # Only the test items and the items are needed from here on; training needs the memory.
            con.execute("drop table split; drop table training_events; drop table user_items")
            trained = _train_and_score(split, evaluation, training, folder)
            contenders.insert(0, measure_lists(con, _MODEL, folder / "recs.parquet", evaluation.top_k))
    report = EvaluationReport(
        out=str(out),
        protocol=evaluation.protocol,
        question=question_of(evaluation),
        k=evaluation.top_k,
        keep_seen=evaluation.keep_seen,
        cut=None if split.cut is None else iso_time(split.cut),
        model=trained,
        tables=list(tables),
        **_compared(contenders, baselines, split.counts.training_items, evaluation, training.seed),
        seconds=round(time.monotonic() - started, 3),
        **asdict(split.counts),
    )
    _write(report, out, json_out)
    return report


def _compared(
    contenders: list[MethodMetrics], baselines: list[MethodMetrics], n_items: int, config: EvaluationConfig, seed: int
) -> dict[str, Any]:
    """Return the results, pairs and verdicts of the report: contenders first, then the baselines, best first."""
    methods = [*contenders, *sorted(baselines, key=lambda measured: -measured.metrics[:, 0].mean())]
    values = np.stack([method.metrics for method in methods])
    comparisons = compare(values, config.n_resamples, np.random.default_rng(seed))
    best, compared = methods[len(contenders)].method, pairs(methods, comparisons)
    return {
        "best_baseline": best,
        "methods": results(methods, comparisons, n_items, len(contenders)),
        "pairs": compared,
        "verdicts": verdicts(compared, [method.method for method in contenders], best, config.top_k),
    }


def _train_and_score(
    split: LogSplit, evaluation: EvaluationConfig, training: TrainingConfig, folder: Path
) -> EvaluatedModel:
    """Train on the training part, and write the lists of the tested users to recs.parquet in the folder."""
    config = replace(training, repeat_items=evaluation.keep_seen, validate=_validation(evaluation, training))
    trained = train(split.training, config, folder / "model")
    score(split.histories, folder / "model", _scoring(evaluation, training), folder / "recs.parquet")
    return EvaluatedModel(
        trained.model_id,
        trained.device,
        trained.epochs,
        trained.best_epoch,
        trained.seconds,
        trained.blend,
        trained.blend_ndcg_gains,
        trained.blend_shares,
        asdict(config) | {"validate": trained.validation},
    )


def _check_outs(out: Path, inputs: Sequence[str]) -> Path:
    """Return the path of the JSON next to the table. Raises ConfigError if either is an input or cannot be written."""
    check_output_file(out, inputs)
    json_out = out.with_suffix(".json")
    if json_out == out:
        raise ConfigError(f"--out {out}: that name is for the JSON next to the table. Pass one that ends in .parquet")
    check_output_file(json_out, inputs, kind=None)
    return json_out


def _tables(con: duckdb.DuckDBPyConnection, schema: pa.Schema, config: EvaluationConfig) -> Lists:
    """Return the tables of --recs, named after their files, without passwords in URLs."""
    return {logs.redacted(file): given_lists(con, file, schema, config.top_k) for file in config.recs}


def _baselines(con: duckdb.DuckDBPyConnection, schema: pa.Schema, config: EvaluationConfig, seed: int) -> Lists:
    methods = Baselines(con, schema, config).by_name()
    if als.is_installed():
        methods["als"] = als.als_lists(con, schema, config, seed)
    else:
        _log.info("als is left out: the package implicit is not installed (pip install 'batchrec[als]')")
    return methods


def _measure(
    con: duckdb.DuckDBPyConnection, methods: Lists, schema: pa.Schema, config: EvaluationConfig, folder: Path
) -> list[MethodMetrics]:
    """Measure the lists of each method; their file is overwritten by the next."""
    out, measured = folder / "lists.parquet", []
    for method, lists in methods.items():
        _log.info("computing the lists of %s for %d users", method, len(con.table("tested_users")))
        write_parquet(lists, schema, out)
        measured.append(measure_lists(con, method, out, config.top_k))
    return measured


def _scoring(evaluation: EvaluationConfig, training: TrainingConfig) -> ScoringConfig:
    # Scoring does not run on Apple's GPUs.
    device = "auto" if training.device == "mps" else training.device
    return ScoringConfig(top_k=evaluation.top_k, keep_seen=evaluation.keep_seen, device=device)


def _validation(evaluation: EvaluationConfig, training: TrainingConfig) -> Validation:
    """Choose the model by the question of the test: each user's last item, or what they take after a time."""
    is_last = evaluation.protocol == "leave-one-out" and training.validate == "auto"
    return "last-item" if is_last else training.validate


def _write(report: EvaluationReport, out: Path, json_out: Path) -> None:
    head = {"protocol": report.protocol, "question": report.question, "k": report.k}
    rows = [head | asdict(method) for method in report.methods]
    schema = evaluation_schema()
    with replacing(json_out) as temporary:
        temporary.write_text(to_json(asdict(report), indent=2) + "\n", encoding="utf-8")
        # Within the block: if the table cannot be written, the older JSON stays with the older table.
        write_parquet(pa.Table.from_pylist(rows, schema).to_batches(), schema, out)
