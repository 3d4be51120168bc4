"""Options that are numbers refuse infinity, NaN, and integers beyond all that a computer counts."""

import math
from dataclasses import fields
from typing import Any

import pytest

from batchrec.config import EvaluationConfig, RunConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import ConfigError

CONFIGS = (RunConfig, ScoringConfig, SequencesConfig, TrainingConfig, EvaluationConfig)
FLOATS = [(config, field.name) for config in CONFIGS for field in fields(config) if "float" in str(field.type)]
INTEGERS = [(config, field.name) for config in CONFIGS for field in fields(config) if "int" in str(field.type)]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("config", "name"), FLOATS, ids=[f"{config.__name__}.{name}" for config, name in FLOATS])
def test_options_refuse_infinity_and_nan(config: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {value}: expected a"):
        config(**{name: value})


@pytest.mark.parametrize(("config", "name"), [*FLOATS, *INTEGERS])
def test_options_refuse_enormous_integers(config: Any, name: str) -> None:
    # 10**400 is too large for a float.
    for value in (2**63, 10**400) if (config, name) in INTEGERS else (10**400,):
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {value}: expected"):
            config(**{name: value})


def test_the_lists_of_options_are_not_empty() -> None:
    assert {"n_resamples", "max_epochs", "threads"} <= {name for _, name in INTEGERS}
    assert {"gate_max_age_days", "max_minutes", "min_rating", "diversity", "test_days"} <= {name for _, name in FLOATS}
