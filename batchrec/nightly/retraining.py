"""Whether tonight's model is retrained, and what the training starts from."""

import logging
from dataclasses import asdict, replace
from datetime import date

from batchrec.config import RunConfig, TrainingConfig, latest_run_date
from batchrec.errors import ModelError
from batchrec.nightly.jobs import Jobs
from batchrec.nightly.registry import ModelVersion
from batchrec.nightly.report import ModelFigures

_log = logging.getLogger(__name__)


def due_by_age(in_use: ModelVersion | None, config: RunConfig, run_date: date) -> str | None:
    """Return why a training is due whatever the model's figures are; None if it is not."""
    if in_use is None:
        return "there is no model yet"
    # A later date is that of a clock that was ahead, and would never age.
    if in_use.trained_on > latest_run_date():
        return f"the model in use, {in_use.name}, is of a night in the future"
    age = (run_date - in_use.trained_on).days
    if age < config.days_between_trainings:
        return None
    return f"the model in use is {age} days old (--train-every {config.train_every})"


def due_by_parts(in_use: ModelVersion | None, jobs: Jobs, config: RunConfig) -> str | None:
    """Return why a training is due by what the model in use stores; None if it stores what tonight's tables need."""
    if in_use is None:
        return None
    try:
        manifest = in_use.manifest
    except ModelError as error:
        return f"the model in use cannot be used: {error}"
    lacks = jobs.lacks(config, has_embeddings=manifest.has_embeddings, has_neighbours=manifest.blend is not None)
    if lacks is None:
        return None
    return f"the model in use was trained with {lacks[1]} and does not store what {lacks[0]} needs"


def due_by_figures(figures: ModelFigures, config: RunConfig) -> str | None:
    """Return why a training is due by the figures of the model in use; None if it is not."""
    if figures.ndcg_at_10 < figures.minimum_ndcg:
        return (
            f"gate: NDCG@10 of the model in use is {figures.ndcg_at_10:.4f}, that of popularity "
            f"{figures.popularity_ndcg_at_10:.4f}"
        )
    if figures.unknown_share > config.max_unknown_share:
        return f"drift: {figures.unknown_share:.1%} of the newest events are of items unknown to the model in use"
    return None


def starting_from(
    in_use: ModelVersion | None, figures: ModelFigures | None, training: TrainingConfig, config: RunConfig
) -> TrainingConfig:
    """Start a training from the encoder in use if there is one, its shape fits, and --from-scratch is not given.

    figures: those of the model in use; None if it cannot be used.
    """
    if in_use is None or figures is None or config.from_scratch or not in_use.manifest.has_embeddings:
        return training
    if figures.unknown_share == 1.0:
        _log.warning("the model in use knows none of the newest events' items, so the training starts from scratch")
        return training
    shape = asdict(in_use.manifest.shape)
    fits = all(getattr(training, name) in (None, value) for name, value in shape.items() if name != "dropout")
    return replace(training, init_from=str(in_use.folder)) if fits else training
