"""Mistakes of people who know other libraries: each ends as they wanted, or in one line that says what to do."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import batchrec
from batchrec import EvaluationConfig, Model, RecommendConfig, ScoringConfig, TrainingConfig
from batchrec.errors import BatchrecError
from tests.support.models import trained_model, training_sequences

FRAME = pd.DataFrame({"userId": [1], "movieId": [2]})
JOBS = [getattr(batchrec, name) for name in batchrec.__all__ if inspect.isfunction(getattr(batchrec, name))]
ADVICE = ". Write it to a Parquet file and pass its path"


def call(job: Any, *arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: job(*arguments, **options)


@pytest.mark.parametrize(
    ("attempt", "line"),
    [
        (
            call(batchrec.build_sequences, "ratings.csv"),
            "ratings.csv: no file found; expected a file, a folder or a glob. Pass --ratings",
        ),
        (
            call(batchrec.build_sequences, FRAME),
            f"ratings: found a DataFrame; expected files, folders, globs or URLs{ADVICE}",
        ),
        (
            call(batchrec.build_sequences, [FRAME]),
            f"ratings: found a DataFrame; expected files, folders, globs or URLs{ADVICE}",
        ),
        (call(batchrec.build_sequences, []), "ratings: found none; expected files, folders, globs or URLs"),
        (call(batchrec.build_sequences, 5), "ratings: found an int; expected files, folders, globs or URLs"),
        (call(batchrec.train, FRAME), f"sequences: found a DataFrame; expected a path{ADVICE}"),
        (
            call(batchrec.train, "s.parquet"),
            "s.parquet: no such file. Run batchrec build-sequences, or pass --sequences FILE",
        ),
        (
            call(batchrec.train, "s.parquet", "model"),
            "config: found a str; expected a TrainingConfig. Pass paths by name, like out=",
        ),
        (call(batchrec.score, "s.parquet", ScoringConfig()), "model: found a ScoringConfig; expected a path"),
        (
            call(batchrec.score, "s.parquet", "model", {"top_k": 5}),
            "config: found a dict; expected a ScoringConfig. Pass paths by name, like out=",
        ),
        (
            call(TrainingConfig, objective="bert4rec"),
            "--objective 'bert4rec': expected causal or masked. causal: predict each next item from the items "
            "before it (SASRec). masked: predict masked items from all others (BERT4Rec)",
        ),
        (call(Model.load, None), "folder: found a NoneType; expected a path"),
        (
            lambda: Model.load(trained_model(), catalogue=FRAME),  # type: ignore[arg-type]
            f"catalogue: found a DataFrame; expected a path{ADVICE}",
        ),
        (call(TrainingConfig, max_epochs="5"), "--max-epochs '5': expected an integer"),
        (
            call(TrainingConfig, device="gpu"),
            "--device 'gpu': expected auto, cuda, mps or cpu. Device to train on. cuda: an NVIDIA GPU. "
            "mps: an Apple GPU",
        ),
        (call(ScoringConfig, precision="float16"), "--precision 'float16': expected fp32, fp16 or int8"),
        (call(TrainingConfig, dropout=1.5), "--dropout 1.5: expected 0 or more, and less than 1"),
        (call(TrainingConfig, hidden_size=64, n_heads=3), "--n-heads 3: expected a divisor of --hidden-size 64"),
        (call(ScoringConfig, users=[1]), "--users (1,): expected a text or None"),
        (
            lambda: batchrec.score(training_sequences(), trained_model(), ScoringConfig(users="1")),
            "1: no file found; expected a file, a folder or a glob. Pass --users FILE",
        ),
        (call(EvaluationConfig, recs="recs.parquet"), "--recs 'recs.parquet': expected a list of texts"),
    ],
)
def test_a_mistake_is_one_line(
    attempt: Callable[[], Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BatchrecError) as refused:
        attempt()
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("job", "name"),
    [
        (job, parameter.name)
        for job in JOBS
        for parameter in inspect.signature(job).parameters.values()
        if isinstance(parameter.default, Path) or is_dataclass(parameter.default)
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_job_refuses_what_is_no_path_or_no_config(job: Any, name: str) -> None:
    parameters = inspect.signature(job).parameters.values()
    required = ["text" for parameter in parameters if parameter.default is parameter.empty]
    with pytest.raises(BatchrecError, match=f"^{name}: found a list; expected a"):
        job(*required, **{name: []})


def test_completion_shows_the_jobs_and_the_model() -> None:
    assert {"__version__", "build_sequences", "train", "score", "Model"} < set(dir(batchrec))
    assert not {"Any", "import_module", "TYPE_CHECKING"} & set(dir(batchrec))


@pytest.mark.usefixtures("no_export")
def test_an_option_that_the_objective_does_not_use_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainingConfig(mask_prob=0.5, max_epochs=0, device="cpu")
    with caplog.at_level(logging.WARNING):
        batchrec.train(training_sequences(), config, tmp_path / "model")
    assert "--objective causal does not use --mask-prob" in caplog.messages
    assert TrainingConfig(objective="masked", mask_prob=0.5).unused == []


def test_one_user_is_scored_by_id_or_by_history() -> None:
    config = RecommendConfig(user=2, top_k=3)
    by_id = batchrec.recommend(model=trained_model(), config=config, sequences=training_sequences())
    assert by_id == batchrec.recommend(
        model=trained_model(), config=RecommendConfig(user="2", top_k=3), sequences=training_sequences()
    )
    history = [item.item_id for item in by_id.history]
    rows = Model.load(trained_model(), device="cpu").recommend([history], 3).table
    assert rows["item_id"].to_pylist() == [item.item_id for item in by_id.recommendations]


def test_ids_may_be_integers_or_their_texts() -> None:
    config = RecommendConfig(top_k=3)
    listed = batchrec.recommend([1003, 1004], trained_model(), config)
    assert listed == batchrec.recommend(["1003", "1004"], trained_model(), config)
    assert len(listed.recommendations) == 3


def test_a_report_reads_its_table(tmp_path: Path) -> None:
    report = batchrec.score(training_sequences(), trained_model(), ScoringConfig(device="cpu"), tmp_path / "r.parquet")
    assert report.table().equals(pq.read_table(tmp_path / "r.parquet"))
    assert np.array_equal(report.to_pandas()["rank"], report.table()["rank"])
    (tmp_path / "r.parquet").unlink()
    with pytest.raises(BatchrecError, match=r"r\.parquet: not a Parquet file of this machine: "):
        report.table()
