"""JSON that every reader takes: a number that is not finite is null."""

import json
import math
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """Replace numbers that are not finite, within dictionaries and lists too, by None: JSON has no name for them."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
