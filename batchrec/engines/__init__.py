"""Engines that score, and build sequences, on more machines than one: thin wrappers, each behind an extra.

A module of an engine, and with it onnxruntime, loads only if its engine is chosen.
"""

from typing import TYPE_CHECKING

from batchrec.config import EngineName, SequencesEngineName

if TYPE_CHECKING:
    from batchrec.scoring.engine import Engine
    from batchrec.sequences.build import Builder


def scoring_engine(name: EngineName) -> "Engine | None":
    """Return the engine that --engine of score names; None for the threads of this process."""
    if name == "ray":
        from batchrec.engines.ray_engine import RayEngine

        return RayEngine()
    if name == "spark":
        from batchrec.engines.spark_engine import SparkEngine

        return SparkEngine()
    return None


def sequences_builder(name: SequencesEngineName) -> "Builder | None":
    """Return the builder that --engine of build-sequences names; None for the DuckDB of this process."""
    if name == "spark":
        from batchrec.engines.spark_sequences import build_on_spark

        return build_on_spark
    return None
