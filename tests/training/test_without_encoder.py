"""The accuracy of a blend, and models of simple signals for which no encoder is trained."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from batchrec.config import RunConfig, ScoringConfig, TrainingConfig, VectorsConfig
from batchrec.errors import ConfigError, ModelError
from batchrec.model.batching import scoring_tokens, seen_pairs
from batchrec.model.directory import load_model
from batchrec.model.metrics import ndcg
from batchrec.model.ranker import Ranker
from batchrec.nightly.registry import ModelVersion
from batchrec.nightly.report import ModelFigures
from batchrec.nightly.retraining import starting_from
from batchrec.scoring.score import score
from batchrec.scoring.vectors import export_vectors
from batchrec.training.corpus import read_corpus
from batchrec.training.holdout import hold_out
from batchrec.training.train import train
from tests.support.models import CONFIG, training_sequences
from tests.support.params import slow_except

SIGNALS = replace(CONFIG, blend="auto", max_epochs=0, validate="last-item")


@pytest.fixture(scope="module")
def signals_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("signals") / "model"
    train(training_sequences(), SIGNALS, out)
    return out


@pytest.mark.parametrize("max_epochs", slow_except([0, 2], 0))
def test_the_reported_accuracy_is_that_of_the_blended_graph(max_epochs: int, tmp_path: Path) -> None:
    config = replace(SIGNALS, max_epochs=max_epochs)
    report = train(training_sequences(), config, tmp_path / "model")
    corpus = read_corpus(training_sequences(), config.seed)
    held_out = hold_out(corpus.histories, config.validation_users, corpus.holdout_users).held_out
    model = load_model(tmp_path / "model")
    users = np.arange(len(held_out.later))
    tokens = scoring_tokens(held_out.histories, users, model.manifest.shape)
    ranking = Ranker(model.graph, "cpu").rank(tokens, seen_pairs(held_out.histories, users), 10)
    is_later = ranking.items == held_out.later.items[:, None]
    ranks = np.where(is_later.any(axis=1), 1 + is_later.argmax(axis=1), 11)
    assert report.ndcg_at_10 == pytest.approx(ndcg(ranks, 10), abs=1e-6)
    assert model.manifest.metrics["ndcg_at_10"] == report.ndcg_at_10


def test_without_an_encoder_nothing_is_trained(signals_model: Path) -> None:
    model = load_model(signals_model)
    assert (signals_model / "training.jsonl").read_text() == ""
    assert model.blend is not None
    assert not model.blend.has_encoder


def test_without_an_encoder_every_user_gets_a_list(signals_model: Path, tmp_path: Path) -> None:
    score(training_sequences(), signals_model, ScoringConfig(top_k=3, device="cpu"), tmp_path / "recs.parquet")
    users = pq.read_table(training_sequences())["user_id"].to_pylist()
    rows = Counter(pq.read_table(tmp_path / "recs.parquet")["user_id"].to_pylist())
    assert rows == dict.fromkeys(users, 3)


def test_what_needs_an_encoder_is_refused(signals_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--max-epochs 0"):
        export_vectors(training_sequences(), signals_model, VectorsConfig(device="cpu"), tmp_path / "vectors")
    with pytest.raises(ModelError, match="--max-epochs 0"):
        score(
            training_sequences(), signals_model, ScoringConfig(diversity=0.5, device="cpu"), tmp_path / "recs.parquet"
        )


def test_no_night_starts_a_training_from_an_encoder_that_was_never_trained(signals_model: Path) -> None:
    in_use, figures = ModelVersion(signals_model), ModelFigures("", 0.2, 0.1, 0.0)
    assert starting_from(in_use, figures, CONFIG, RunConfig()).init_from is None


def test_a_model_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="--max-epochs 0: expected 1 or more with --blend none"):
        TrainingConfig(max_epochs=0, blend="none")
