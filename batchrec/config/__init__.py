"""The options of each job: frozen, checked when made. The command line is generated from these fields."""

from batchrec.config.bench import BenchConfig
from batchrec.config.evaluation import EvaluationConfig
from batchrec.config.nightly import RunConfig
from batchrec.config.scoring import CatalogueConfig, RecommendConfig, ScoringConfig, ScoringPrecision
from batchrec.config.sequences import SequencesConfig
from batchrec.config.training import Device, EncoderShape, Objective, Precision, TrainingConfig

__all__ = [
    "BenchConfig",
    "CatalogueConfig",
    "Device",
    "EncoderShape",
    "EvaluationConfig",
    "Objective",
    "Precision",
    "RecommendConfig",
    "RunConfig",
    "ScoringConfig",
    "ScoringPrecision",
    "SequencesConfig",
    "TrainingConfig",
]
