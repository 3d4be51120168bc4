"""Texts about a row that cannot be used: its value, and advice if all rows are like it."""

from collections.abc import Sequence

from batchrec.sources import NOT_UTF_8, Reject

# Reasons whose advice helps even if other rows can be used.
_ABOUT_ONE_ROW = ("unknown event type", NOT_UTF_8)


# As Spark and MySQL write a quote within quotes; others double it.
ESCAPED_QUOTE = '\\"'


def advice_on(reject: Reject, is_every_row: bool) -> str:
    """Return advice if no row can be used, because then the format of the file is the likely cause; or on the row."""
    reason = reject.reason
    if ESCAPED_QUOTE in reject.value:
        return r"For quotes that a backslash escapes pass --query with read_csv and escape = '\'. "
    if not is_every_row and reason not in _ABOUT_ONE_ROW:
        return ""
    query = "or read the file with --query. "
    fields = f"Name every field of the rows in the header, {query}"
    return {
        "unreadable time": f"Pass --timestamp-format for times in another format, {query}",
        "no rating": f"Pass --rating-column; a decimal comma may have up to two digits, {query}",
        "malformed (too many columns)": fields,
        "malformed (missing columns)": fields,
        NOT_UTF_8: "Convert the file to UTF-8, as with iconv -f latin1 -t utf-8. ",
        "unknown event type": "Name every type in --event-weights; 0 makes its items only seen. ",
    }.get(reason, "")


def shown_value(reason: str, raw: Sequence[str | None]) -> str:
    """Return the value that makes a row unusable; if a value is missing, the whole row."""
    places = {"unreadable time": 2, "no rating": 3, "unknown event type": 4, "no value": 5, "unusable value": 5}
    place = places.get(reason, {"u": 0, "i": 1}.get(reason[0]))
    value = None if place is None else raw[place]
    row = raw[:3] if place is None or place < 3 else [*raw[:3], raw[place]]
    return ",".join(text or "" for text in row) if value is None else value
