"""Parameters of which `make test` runs a few, and `make test-slow` the others."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from tests.support.models import OBJECTIVES


def slow_except(cases: Iterable[Any] | Mapping[str, Any], *quick: Any) -> list[ParameterSet]:
    """Mark all cases slow except some: values, or names if cases are named."""
    named = cases.items() if isinstance(cases, Mapping) else ((case, case) for case in cases)
    return [pytest.param(value, id=str(name), marks=() if name in quick else pytest.mark.slow) for name, value in named]


# For a test of the fixture `objective`
masked_is_slow = pytest.mark.parametrize("objective", slow_except(OBJECTIVES, "causal"), indirect=True)
