"""Texts about a row that cannot be used: its value, and advice if all rows are like it."""

from collections.abc import Sequence


def advice_on(reason: str) -> str:
    """Return advice if no row can be used, because then the format of the file is the likely cause."""
    query = "or read the file with --query. "
    return {
        "unreadable time": f"Pass --timestamp-format for times in another format, {query}",
        "no rating": f"Pass --rating-column; a decimal comma may have up to two digits, {query}",
        "unknown event type": "Name every type in --event-weights; 0 makes its items only seen. ",
    }.get(reason, "")


def shown_value(reason: str, raw: Sequence[str | None]) -> str:
    """Return the value that makes a row unusable; if a value is missing, the whole row."""
    places = {"unreadable time": 2, "no rating": 3, "unknown event type": 4, "no value": 5, "unusable value": 5}
    place = places.get(reason, {"u": 0, "i": 1}.get(reason[0]))
    value = None if place is None else raw[place]
    row = raw[:3] if place is None or place < 3 else [*raw[:3], raw[place]]
    return ",".join(text or "" for text in row) if value is None else value
