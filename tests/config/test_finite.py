"""Options that are numbers refuse infinity and NaN."""

import math
from dataclasses import fields
from typing import Any

import pytest

from batchrec.config import EvaluationConfig, RunConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import ConfigError

FLOATS = [
    (config, field.name)
    for config in (RunConfig, ScoringConfig, SequencesConfig, TrainingConfig, EvaluationConfig)
    for field in fields(config)
    if "float" in str(field.type)
]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("config", "name"), FLOATS, ids=[f"{config.__name__}.{name}" for config, name in FLOATS])
def test_options_refuse_infinity_and_nan(config: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {value}: expected a"):
        config(**{name: value})


def test_the_list_of_float_options_is_not_empty() -> None:
    assert {"gate_max_age_days", "max_minutes", "min_rating", "diversity", "test_days"} <= {name for _, name in FLOATS}
