"""batchrec: a nightly table of top-k recommendations for every user.

The jobs and their options: build_sequences with SequencesConfig, train with TrainingConfig, tune with TuneConfig,
score with ScoringConfig, similar with SimilarConfig, evaluate with EvaluationConfig, recommend with RecommendConfig,
bench with BenchConfig. run runs a whole night of Jobs, with RunConfig. diagnose checks the machine. Model is a trained
model in memory, with titles by CatalogueConfig. Each loads when it is first used: `import batchrec` loads none of
torch, onnxruntime and duckdb.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchrec.benchmark.bench import bench
    from batchrec.config import (
        BenchConfig,
        CatalogueConfig,
        EvaluationConfig,
        RecommendConfig,
        RunConfig,
        ScoringConfig,
        SequencesConfig,
        SimilarConfig,
        TrainingConfig,
        TuneConfig,
    )
    from batchrec.doctor import diagnose
    from batchrec.errors import BatchrecError
    from batchrec.evaluation.evaluate import evaluate
    from batchrec.interactive.model import Model
    from batchrec.nightly.jobs import Jobs
    from batchrec.nightly.run import run
    from batchrec.scoring.recommend import recommend
    from batchrec.scoring.score import score
    from batchrec.sequences.build import build_sequences
    from batchrec.similarity.similar import similar
    from batchrec.training.loop import Epoch
    from batchrec.training.trackers import tracker
    from batchrec.training.train import train
    from batchrec.tuning.tune import tune

# Builds of onnxruntime report each session to their makers, and keep a device id and a queue in the user's folders. It
# looks at this variable when it loads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "BatchrecError": "errors",
    "BenchConfig": "config",
    "CatalogueConfig": "config",
    "Epoch": "training.loop",
    "EvaluationConfig": "config",
    "Jobs": "nightly.jobs",
    "Model": "interactive.model",
    "RecommendConfig": "config",
    "RunConfig": "config",
    "ScoringConfig": "config",
    "SequencesConfig": "config",
    "SimilarConfig": "config",
    "TrainingConfig": "config",
    "TuneConfig": "config",
    "bench": "benchmark.bench",
    "build_sequences": "sequences.build",
    "diagnose": "doctor",
    "evaluate": "evaluation.evaluate",
    "recommend": "scoring.recommend",
    "run": "nightly.run",
    "score": "scoring.score",
    "similar": "similarity.similar",
    "tracker": "training.trackers",
    "train": "training.train",
    "tune": "tuning.tune",
}

__all__ = [
    "BatchrecError",
    "BenchConfig",
    "CatalogueConfig",
    "Epoch",
    "EvaluationConfig",
    "Jobs",
    "Model",
    "RecommendConfig",
    "RunConfig",
    "ScoringConfig",
    "SequencesConfig",
    "SimilarConfig",
    "TrainingConfig",
    "TuneConfig",
    "bench",
    "build_sequences",
    "diagnose",
    "evaluate",
    "recommend",
    "run",
    "score",
    "similar",
    "tracker",
    "train",
    "tune",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("batchrec")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"batchrec.{_HOMES[name]}"), name)
