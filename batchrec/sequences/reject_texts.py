"""Texts about a row that cannot be used: its value, and advice if all rows are like it."""

import re
from collections.abc import Sequence

from batchrec.sources import ADVICE_ON_ESCAPED_QUOTES, ESCAPED_QUOTE, NO_JSON_OBJECT, NOT_UTF_8, Reject

# Reasons whose advice helps even if other rows can be used.
_ABOUT_ONE_ROW = ("unknown event type", NOT_UTF_8, "user id has lost digits", "item id has lost digits")
_TIME_OF_DAY = re.compile(r"\s*\d\d?:\d\d(:\d\d([.,]\d+)?)?\s*")


# As MySQL and Postgres write tabs and line ends of a text into a file.
_ESCAPED_TEXT = ("\\\t", "\\|", "\\,")


def advice_on(reject: Reject, is_most_rows: bool, time_column: str) -> str:
    """Return advice on the row, or on the format of the file, the likely cause if most rows cannot be used.

    time_column: name of the column of times.
    """
    special = _advice_on_escapes(reject) or _advice_on_time(reject, time_column)
    if special is not None:
        return special
    reason = reject.reason
    if not is_most_rows and reason not in _ABOUT_ONE_ROW:
        return ""
    query = "or read the file with --query. "
    fields = f"Name every field of the rows with --columns, {query}"
    digits = "Write ids as whole numbers or as text, not as floats: in R with format(id, scientific = FALSE). "
    return {
        "unreadable time": f"Pass --timestamp-format for times in another format, {query}",
        "no rating": f"Pass --rating-column; a decimal comma may have up to two digits, {query}",
        "malformed (too many columns)": fields,
        "malformed (missing columns)": fields,
        "user id has lost digits": digits,
        "item id has lost digits": digits,
        NOT_UTF_8: "Convert the file from its own encoding to UTF-8, as with iconv -f windows-1252 -t utf-8: "
        "windows-1252 in western Europe, shift_jis in Japan, gb18030 in China. ",
        "unknown event type": "Name every type in --event-weights; 0 makes its items only seen. ",
    }.get(reason, "")


def _advice_on_escapes(reject: Reject) -> str | None:
    if reject.reason == NO_JSON_OBJECT:
        # COPY of Postgres and mysql -B escape the backslashes of JSON again.
        is_doubled = r'\\"' in reject.value
        return (
            "Write the objects without doubled backslashes, as psql -At and mysql -B --raw do. " if is_doubled else ""
        )
    if ESCAPED_QUOTE in reject.value:
        return ADVICE_ON_ESCAPED_QUOTES
    is_escaped = reject.value.endswith("\\") or any(text in reject.value for text in _ESCAPED_TEXT)
    if reject.reason.startswith("malformed") and is_escaped:
        return "For texts that backslashes escape export only the columns of users, items and times, or as CSV. "
    return None


def _advice_on_time(reject: Reject, time_column: str) -> str | None:
    if reject.reason != "unreadable time":
        return None
    if reject.value.strip() == time_column:
        return "The line repeats the header, as if files were joined: remove such lines. "
    if _TIME_OF_DAY.fullmatch(reject.value):
        return "For a date and a time of day in two columns pass --query with concat_ws(' ', date, time) as timestamp. "
    return None


def shown_value(reason: str, raw: Sequence[str | None]) -> str:
    """Return the value that makes a row unusable; if a value is missing, the whole row."""
    places = {"unreadable time": 2, "no rating": 3, "unknown event type": 4, "no value": 5, "unusable value": 5}
    place = places.get(reason, {"u": 0, "i": 1}.get(reason[0]))
    value = None if place is None else raw[place]
    row = raw[:3] if place is None or place < 3 else [*raw[:3], raw[place]]
    return ",".join(text or "" for text in row) if value is None else value
