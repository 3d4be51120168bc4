"""The report of an evaluation: who was tested on what, and the figures of each method and of each pair of methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from batchrec.config import EvaluationConfig
from batchrec.evaluation.bootstrap import Interval, MethodComparison
from batchrec.evaluation.metrics import METRICS, MethodMetrics
from batchrec.tables.report_table import ReportTable


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
class MethodPair:
    """The gain in NDCG of one method over another, with the same resamples of the same users."""

    method: str
    other: str
    ndcg_gain: float
    ndcg_gain_low: float
    ndcg_gain_high: float


@dataclass(frozen=True)
class EvaluatedModel:
    """The tested model: its training, its blend as in TrainingReport, and the options of the training."""

    model_id: str
    device: str
    epochs: int
    best_epoch: int
    seconds: float
    blend: dict[str, float]
    blend_ndcg_gains: dict[str, float]
    blend_shares: dict[str, float]
    options: dict[str, Any]


@dataclass(frozen=True)
class EvaluationReport(ReportTable):
    """The tested users and items, and each method's result: model and --recs first, then the baselines, best first.

    question: in words. users_tested and users_not_tested (by reason) add up to all users of the log. cut: the first
    time of the test, None if each user has their own. unknown_test_items: test items that nobody has in the training
    part. model: None with --no-model. tables: the methods that are tables of --recs. pairs: every two methods.
    verdicts: in words, of the model and the tables against the best baseline and each other.
    """

    out: str
    protocol: str
    question: str
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
    model: EvaluatedModel | None
    tables: list[str]
    best_baseline: str
    methods: list[MethodResult]
    pairs: list[MethodPair]
    verdicts: list[str]
    seconds: float


def question_of(config: EvaluationConfig) -> str:
    """Return the question that an evaluation answers, in words."""
    new = "" if config.keep_seen else "new "
    if config.protocol == "split":
        items = f"the first {new}item" if config.is_next_only else f"the {new}items"
        return f"Does a list hold {items} that --split names for the user?"
    if config.is_next_only:
        return f"Does a list hold the next {new}item that the user takes?"
    return f"Does a list hold the {new}items that the user takes after the cut?"


def results(
    methods: Sequence[MethodMetrics], comparisons: Sequence[MethodComparison], n_items: int, reference: int
) -> list[MethodResult]:
    """Return each method's result; reference: the place of the method over which gains are taken."""
    return [
        MethodResult(
            method=method.method,
            coverage=method.n_items / n_items,
            mean_popularity_rank=method.mean_popularity_rank,
            users_with_full_list=method.users_with_full_list,
            **_bounds("ndcg_gain", comparison.gains[reference]),
            **{
                name: value
                for metric, interval in zip(METRICS, comparison.metrics, strict=True)
                for name, value in _bounds(metric, interval).items()
            },
        )
        for method, comparison in zip(methods, comparisons, strict=True)
    ]


def pairs(methods: Sequence[MethodMetrics], comparisons: Sequence[MethodComparison]) -> list[MethodPair]:
    """Return the gain of every method over each of the methods after it."""
    return [
        MethodPair(methods[one].method, methods[other].method, **_bounds("ndcg_gain", comparisons[one].gains[other]))
        for one, other in combinations(range(len(methods)), 2)
    ]


def _bounds(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
