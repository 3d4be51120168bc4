"""The options of each job: frozen dataclasses, checked on construction. The command line is made from their fields."""

from batchrec.config.bench import BenchConfig
from batchrec.config.catalogue import CatalogueConfig
from batchrec.config.csv import CsvOptions
from batchrec.config.diff import DiffConfig
from batchrec.config.evaluation import EvaluationConfig
from batchrec.config.explore import ExploreConfig
from batchrec.config.options import parse_date, parse_dates
from batchrec.config.report import ReportConfig
from batchrec.config.rules import RulesConfig
from batchrec.config.run import RunConfig
from batchrec.config.run_date import end_of_day, latest_run_date
from batchrec.config.scoring import (
    EngineName,
    Layout,
    PublishingConfig,
    RecommendConfig,
    ScoringConfig,
    ScoringPrecision,
    TargetLayout,
    VectorsConfig,
)
from batchrec.config.sequences import IdType, SequencesConfig, SequencesEngineName, TimestampUnit
from batchrec.config.shard import Shard
from batchrec.config.similar import SimilarConfig, SimilarMethod
from batchrec.config.training import Device, EncoderShape, Objective, Precision, TrainingConfig, Validation
from batchrec.config.tune import SPACE, TuneConfig

__all__ = [
    "SPACE",
    "BenchConfig",
    "CatalogueConfig",
    "CsvOptions",
    "Device",
    "DiffConfig",
    "EncoderShape",
    "EngineName",
    "EvaluationConfig",
    "ExploreConfig",
    "IdType",
    "Layout",
    "Objective",
    "Precision",
    "PublishingConfig",
    "RecommendConfig",
    "ReportConfig",
    "RulesConfig",
    "RunConfig",
    "ScoringConfig",
    "ScoringPrecision",
    "SequencesConfig",
    "SequencesEngineName",
    "Shard",
    "SimilarConfig",
    "SimilarMethod",
    "TargetLayout",
    "TimestampUnit",
    "TrainingConfig",
    "TuneConfig",
    "Validation",
    "VectorsConfig",
    "end_of_day",
    "latest_run_date",
    "parse_date",
    "parse_dates",
]
