"""Weights of events, by type or by a value, as options spell them: view=1,cart=3,purchase=5."""

import math

from batchrec.config.options import check


def parse_weights(option: str, text: str) -> dict[str, float]:
    """Return the weight of each name in a text like view=1,purchase=5, in its order.

    option: the field of the config, for errors. Raises ConfigError for a name without a weight, one that is named
    twice, a weight that is not a finite number, and weights of which none is above 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.rpartition("="))
        number = _number(weight)
        check(name != "" and number is not None, option, text, "names with weights like view=1,purchase=5")
        check(name not in weights, option, text, f"each name once, not {name!r} twice")
        weights[name] = number or 0.0
    check(max(weights.values()) > 0, option, text, "a weight above 0 for one name or more")
    return weights


def parse_steps(option: str, text: str) -> list[tuple[float, float]]:
    """Return the steps of a text like 30=1,300=2, ascending: the value from which on a weight applies, and the weight.

    Raises ConfigError as `parse_weights`, and for a value that is not a finite number.
    """
    steps = []
    for name, weight in parse_weights(option, text).items():
        value = _number(name)
        check(value is not None, option, text, f"numbers as values, not {name!r}")
        steps.append((value or 0.0, weight))
    check(len({value for value, _ in steps}) == len(steps), option, text, "each value once")
    return sorted(steps)


def _number(text: str) -> float | None:
    """Return the finite number that a text spells; None for all other texts."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
