"""The evaluate job: train on a part of the log, score the tested users, and compare with simple methods.

Popularity here answers: how popular are the items that a method recommends (mean_popularity_rank)? Items are ranked by
their events in the training part (sql/evaluation/training_items.sql).
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from batchrec.config import EvaluationConfig, ScoringConfig, TrainingConfig, Validation
from batchrec.errors import ConfigError
from batchrec.evaluation import als
from batchrec.evaluation.baselines import Baselines
from batchrec.evaluation.bootstrap import Interval, compare
from batchrec.evaluation.metrics import METRICS, MethodMetrics, measure_lists
from batchrec.evaluation.splits import split_sequences
from batchrec.scoring.score import score
from batchrec.system.atomic import check_writable_file, replacing
from batchrec.system.json_text import to_json
from batchrec.system.temporaries import temporary_folder
from batchrec.tables.log_end import iso_time
from batchrec.tables.parquet import write_parquet
from batchrec.tables.queries import connect
from batchrec.tables.schemas import evaluation_schema, lists_schema
from batchrec.tables.sequences_table import open_sequences
from batchrec.training.train import train

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MethodResult:
    """The metrics of one method at k, averaged over the tested users; *_low and *_high bound the 95 % interval.

    coverage: share of the training part's items that are recommended to at least one user. mean_popularity_rank: mean
    over the recommended items, 1 for the most popular; None if nothing is recommended. ndcg_gain: gain over the best
    baseline, with the same resamples of the same users.
    """

    method: str
    ndcg: float
    ndcg_low: float
    ndcg_high: float
    hit_rate: float
    hit_rate_low: float
    hit_rate_high: float
    recall: float
    recall_low: float
    recall_high: float
    mrr: float
    mrr_low: float
    mrr_high: float
    coverage: float
    mean_popularity_rank: float | None
    users_with_full_list: int
    ndcg_gain: float
    ndcg_gain_low: float
    ndcg_gain_high: float


@dataclass(frozen=True)
class EvaluatedModel:
    """The tested model: its training, and the training options."""

    model_id: str
    device: str
    epochs: int
    best_epoch: int
    seconds: float
    options: dict[str, Any]


@dataclass(frozen=True)
class EvaluationReport:
    """The tested users and items, and each method's result: the model first, then the baselines, best first.

    users_tested and users_not_tested (by reason) add up to all users of the log. cut: the first time of the test, None
    if each user has their own. unknown_test_items: test items that nobody has in the training part.
    """

    out: str
    protocol: str
    k: int
    keep_seen: bool
    cut: str | None
    users_tested: int
    users_not_tested: dict[str, int]
    test_items: int
    unknown_test_items: int
    training_users: int
    training_items: int
    training_events: int
    model: EvaluatedModel
    best_baseline: str
    methods: list[MethodResult]
    seconds: float


def evaluate(
    sequences: Path = Path("sequences.parquet"),
    evaluation: EvaluationConfig = EvaluationConfig(),
    training: TrainingConfig = TrainingConfig(),
    out: Path = Path("evaluation.parquet"),
) -> EvaluationReport:
    """Measure the model and the baselines on the log itself; write the evaluation table, and the report as JSON.

    The model is trained and scored by `train` and `score`, as in a nightly run. Before training, raises InputError if
    the sequences break their contract or the protocol cannot split them, and ConfigError if `out` cannot be written or
    k exceeds the number of items; later whatever `train` and `score` raise. Then `out` stays as it was.
    """
    started = time.monotonic()
    json_out = _check_outs(out)
    if training.init_from is not None:
        raise ConfigError("--init-from: that model may have learned the test items. Evaluate without it")
    log = open_sequences(sequences)
    with temporary_folder(out.parent / "batchrec") as folder, connect(folder) as con:
        split = split_sequences(con, log, evaluation, training.seed, folder)
        schema = lists_schema(log.user_type, log.item_type)
        baselines: list[MethodMetrics] = []
        for method, lists in _baselines(con, schema, evaluation, training.seed).items():
            _log.info("computing the lists of %s for %d users", method, split.counts.users_tested)
            write_parquet(lists, schema, folder / "lists.parquet")
            baselines.append(measure_lists(con, method, folder / "lists.parquet", evaluation.top_k))
        # Only the test items and the items are needed from here on; training needs the memory.
        con.execute("drop table split; drop table training_events; drop table user_items")
        training = replace(training, repeat_items=evaluation.keep_seen, validate=_validation(evaluation, training))
        trained = train(split.training, training, folder / "model")
        score(split.histories, folder / "model", _scoring(evaluation, training), folder / "recs.parquet")
        model = measure_lists(con, "model", folder / "recs.parquet", evaluation.top_k)
    baselines.sort(key=lambda measured: -measured.metrics[:, 0].mean())
    report = EvaluationReport(
        out=str(out),
        protocol=evaluation.protocol,
        k=evaluation.top_k,
        keep_seen=evaluation.keep_seen,
        cut=None if split.cut is None else iso_time(split.cut),
        model=EvaluatedModel(
            trained.model_id, trained.device, trained.epochs, trained.best_epoch, trained.seconds, asdict(training)
        ),
        best_baseline=baselines[0].method,
        methods=_results([model, *baselines], split.counts.training_items, evaluation.n_resamples, training.seed),
        seconds=round(time.monotonic() - started, 3),
        **asdict(split.counts),
    )
    _write(report, out, json_out)
    return report


def _check_outs(out: Path) -> Path:
    """Return the path of the JSON next to the table. Raises ConfigError if one of the two cannot be written."""
    check_writable_file(out)
    json_out = out.with_suffix(".json")
    if json_out == out:
        raise ConfigError(f"--out {out}: that name is for the JSON next to the table. Pass one that ends in .parquet")
    check_writable_file(json_out)
    return json_out


def _baselines(
    con: duckdb.DuckDBPyConnection, schema: pa.Schema, config: EvaluationConfig, seed: int
) -> dict[str, Iterator[pa.RecordBatch]]:
    """Return the baselines by name; their lists are computed when read."""
    queries = Baselines(con, schema, config)
    methods = {
        "popular": queries.popular(),
        f"popular, last {config.popular_days} days": queries.recently_popular(),
        "item-to-item": queries.item_to_item(),
    }
    if als.is_installed():
        methods["als"] = als.als_lists(con, schema, config, seed)
    else:
        _log.warning("als is left out: the package implicit is missing. Install it with pip install 'batchrec[als]'")
    return methods


def _scoring(evaluation: EvaluationConfig, training: TrainingConfig) -> ScoringConfig:
    # Scoring does not run on Apple's GPUs.
    device = "auto" if training.device == "mps" else training.device
    return ScoringConfig(top_k=evaluation.top_k, keep_seen=evaluation.keep_seen, device=device)


def _validation(evaluation: EvaluationConfig, training: TrainingConfig) -> Validation:
    """Choose the model by the question of the test: each user's last item, or what they take after a time."""
    is_last = evaluation.protocol == "leave-one-out" and training.validate == "auto"
    return "last-item" if is_last else training.validate


def _results(methods: list[MethodMetrics], n_items: int, n_resamples: int, seed: int) -> list[MethodResult]:
    """Average over the users. methods: the model, the best baseline (the reference for gains), then the others."""
    values = np.stack([method.metrics for method in methods])
    comparisons = compare(values, 1, n_resamples, np.random.default_rng(seed))
    return [
        MethodResult(
            method=method.method,
            coverage=method.n_items / n_items,
            mean_popularity_rank=method.mean_popularity_rank,
            users_with_full_list=method.users_with_full_list,
            **_bounds("ndcg_gain", comparison.gain),
            **{
                name: value
                for metric, interval in zip(METRICS, comparison.metrics, strict=True)
                for name, value in _bounds(metric, interval).items()
            },
        )
        for method, comparison in zip(methods, comparisons, strict=True)
    ]


def _bounds(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _write(report: EvaluationReport, out: Path, json_out: Path) -> None:
    rows = [{"protocol": report.protocol, "k": report.k} | asdict(method) for method in report.methods]
    schema = evaluation_schema()
    with replacing(json_out) as temporary:
        temporary.write_text(to_json(asdict(report), indent=2) + "\n", encoding="utf-8")
        # Within the block: if the table cannot be written, the older JSON stays with the older table.
        write_parquet(pa.Table.from_pylist(rows, schema).to_batches(), schema, out)
