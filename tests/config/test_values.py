"""Values that Python hands to a config: those that the command line refuses are refused by the same words."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import batchrec
from batchrec.config import EvaluationConfig, ScoringConfig, TrainingConfig
from batchrec.errors import ConfigError

CONFIGS = [getattr(batchrec, name) for name in batchrec.__all__ if name.endswith("Config")]
CHOICES = [
    (config, field.name, hint)
    for config in CONFIGS
    for field in fields(config)
    if get_origin(hint := get_type_hints(config)[field.name]) is Literal
]


@pytest.mark.parametrize(("config", "name", "hint"), CHOICES, ids=lambda value: getattr(value, "__name__", value))
def test_a_value_that_is_no_choice_is_refused(config: Any, name: str, hint: Any) -> None:
    choices = get_args(hint)
    expected = " or ".join([", ".join(choices[:-1]), choices[-1]])
    (text,) = (field.metadata["help"] for field in fields(config) if field.name == name)
    # The help says what the choices mean, if they do not speak for themselves.
    meaning = f". {text.removesuffix('.')}" if re.search(rf"\b({'|'.join(choices)}): ", text) else ""
    with pytest.raises(ConfigError) as refused:
        config(**{name: "bert4rec"})
    assert str(refused.value) == f"--{name.replace('_', '-')} 'bert4rec': expected {expected}{meaning}"


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (TrainingConfig, {"max_epochs": "5"}, "--max-epochs '5': expected an integer"),
        (TrainingConfig, {"max_epochs": 2.5}, "--max-epochs 2.5: expected an integer"),
        (TrainingConfig, {"threads": True}, "--threads True: expected an integer or None"),
        (TrainingConfig, {"dropout": "none"}, "--dropout 'none': expected a number or None"),
        (TrainingConfig, {"keep_ties": 1}, "--keep-ties 1: expected True or False"),
        (
            TrainingConfig,
            {"device": None},
            "--device None: expected auto, cuda, mps or cpu. Device to train on. cuda: an NVIDIA GPU. "
            "mps: an Apple GPU",
        ),
        (ScoringConfig, {"top_k": None}, "--top-k None: expected an integer"),
        (ScoringConfig, {"users": ["1"]}, "--users ('1',): expected a text or None"),
        (EvaluationConfig, {"recs": "recs.parquet"}, "--recs 'recs.parquet': expected a list of texts"),
        (EvaluationConfig, {"recs": [1]}, "--recs (1,): expected a list of texts"),
    ],
)
def test_a_value_of_another_type_is_refused(config: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(**values)
    assert str(refused.value) == message


def test_paths_lists_and_numbers_of_numpy_are_kept_as_those_of_the_command_line() -> None:
    assert ScoringConfig(previous=Path("a/recs.parquet")) == ScoringConfig(previous="a/recs.parquet")  # type: ignore[arg-type]
    assert EvaluationConfig(recs=["a", Path("b")]) == EvaluationConfig(recs=("a", "b"))  # type: ignore[arg-type]
    config = TrainingConfig(seed=np.int64(3), dropout=np.float64(0.5))  # type: ignore[arg-type]
    assert (type(config.seed), type(config.dropout)) == (int, float)
    assert TrainingConfig(dropout=0, max_minutes=1).dropout == 0


def test_completion_shows_the_jobs_and_the_version() -> None:
    assert dir(batchrec) == sorted([*batchrec.__all__, "__version__"])
    assert batchrec.__version__.count(".") == 2


def test_jobs_take_paths_as_text_and_one_file_or_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{user},{(user * step) % 7},{1_600_000_000 + step}" for user in range(12) for step in range(1, 6)]
    Path("ratings.csv").write_text("\n".join(["userId,movieId,timestamp", *rows]) + "\n")
    one, many = batchrec.build_sequences("ratings.csv", out="one.parquet"), [Path("ratings.csv")]
    assert batchrec.build_sequences(many, out=Path("many.parquet")).users == one.users == 12
    assert Path("one.parquet").read_bytes() == Path("many.parquet").read_bytes()
    batchrec.train("one.parquet", TrainingConfig(max_epochs=0, device="cpu"), "model")
    assert batchrec.score("one.parquet", "model", ScoringConfig(top_k=2, device="cpu"), "recs.parquet").users == 12
    batchrec.similar("model", out="similar.parquet")
    config = batchrec.RecommendConfig(top_k=3)
    assert batchrec.recommend([1, 2], "model", config) == batchrec.recommend(["1", "2"], Path("model"), config)
    assert [item.item_id for item in batchrec.recommend("1", "model", config).history] == [1]
