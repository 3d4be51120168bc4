"""JSON that every parser accepts: a number that is not finite is null."""

import json
import math
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON text."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """Return a value with None for numbers that are not finite, also within dictionaries and lists: JSON lacks them."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
