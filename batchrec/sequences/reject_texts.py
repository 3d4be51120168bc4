"""What messages and the file of rejects say about a row that cannot be used."""

from collections.abc import Sequence


def advice_on(reason: str) -> str:
    """Return advice if no row can be used, because then the format of the file is the likely cause."""
    query = "or read the file with --query. "
    return {
        "unreadable time": f"Pass --timestamp-format for times in another format, {query}",
        "no rating": f"Pass --rating-column; a decimal comma may have up to two digits, {query}",
    }.get(reason, "")


def shown_value(reason: str, raw: Sequence[str | None]) -> str:
    """Return the value that makes a row unusable; if a value is missing, the whole row."""
    place = {"unreadable time": 2, "no rating": 3}.get(reason, {"u": 0, "i": 1}.get(reason[0]))
    value = None if place is None else raw[place]
    return ",".join(text or "" for text in raw[: 4 if place == 3 else 3]) if value is None else value
