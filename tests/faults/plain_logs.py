"""The rules of docs/logs.md in plain Python: an independent reader of logs, and the events that it expects.

A value that no rule decides is doubtful, such as a quote inside an unquoted field, or a time in an unknown form. Its
event may be in the table or not, but no other row may be lost.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum

BLANKS = " \t\n\r\v\f\0\u00a0\u3000\ufeff"
NULLS = {"", "\\n", "null", "none", "nan", "<na>", "nat"}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.0*)?")
_LOST_DIGITS = re.compile(r"\s*-?[0-9]([.,][0-9]+)?[eE]\+[0-9]+\s*")
_JAVA_FLOAT = re.compile(r"-?[1-9]\.([0-9]+)E([1-9][0-9]?)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{0,6})?")
_ISO = re.compile(
    r"([1-9][0-9]{3})-([0-9]{2})-([0-9]{2})"
    r"(?:[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_STARS = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]*)?")
_COMMA = re.compile(r"([+-]?[0-9]{1,15}),([0-9]{1,2})")
_NO_TEXT = re.compile("[\udc80-\udcff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Verdict(Enum):
    """Whether a value can be used."""

    GOOD = 0
    BAD = 1
    DOUBTFUL = 2


@dataclass(frozen=True)
class Records:
    """The records of a file. is_plain: whether it can be read in only one way.

    n_bad: records below the header that have another number of fields, or that are not text in a column that is read.
    """

    header: list[str]
    rows: list[list[str]]
    n_bad: int
    is_plain: bool


@dataclass(frozen=True)
class Values:
    """The texts of an event as they are in the file; None if missing."""

    user: str | None
    item: str | None
    time: str | None
    rating: str | None = None


@dataclass
class Expected:
    """The expected result of a log.

    events: the seconds of each user and item, both as text; is_doubtful: whether it has a value that no rule decides.
    """

    n_rows: int
    events: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    n_rejected: int = 0
    n_below: int = 0
    are_integers: tuple[bool, bool] = (True, True)
    is_refused: bool = False
    is_doubtful: bool = False


def split_records(text: str, delimiter: str, quote: str) -> tuple[list[list[str]], bool]:
    """Split text into records by RFC 4180, character by character; return also whether the text follows it."""
    records: list[list[str]] = []
    fields: list[str] = []
    is_plain, place = True, 0
    ends = set(re.findall(r"\r\n|\r|\n", text if not quote else re.sub(f"{quote}[^{quote}]*{quote}", "", text)))
    if len(ends) > 1 or "\0" in text:
        is_plain = False
    while place < len(text):
        if quote and text[place] == quote:
            value, place, is_closed = _quoted(text, place, quote)
            is_plain &= is_closed
        else:
            value = ""
        start = place
        while place < len(text) and text[place] not in "\r\n" and not text.startswith(delimiter, place):
            place += 1
        rest = text[start:place]
        # False if characters follow a closing quote, or if an unquoted field has a quote.
        is_plain &= not (quote and quote in rest) and not (rest != "" and start > 0 and text[start - 1] == quote != "")
        fields.append(value + rest)
        if place < len(text) and text.startswith(delimiter, place):
            place += len(delimiter)
            if place < len(text):
                continue
            fields.append("")
        elif text.startswith("\r\n", place):
            place += 2
        else:
            place += 1
        records.append(fields)
        fields = []
    return records, is_plain


def _quoted(text: str, place: int, quote: str) -> tuple[str, int, bool]:
    end = place + 1
    while True:
        end = text.find(quote, end)
        if end < 0:
            return text[place + 1 :], len(text), False
        if not text.startswith(quote, end + 1):
            return text[place + 1 : end].replace(quote * 2, quote), end + 1, True
        end += 2


def read_records(
    contents: bytes, delimiter: str, quote: str, wanted: Sequence[str], names: Sequence[str] = ()
) -> Records:
    """Read the records of a file. wanted: the columns that are read; names: all columns of a file without a header."""
    text = contents.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    records, is_plain = split_records(text, delimiter, quote)
    # Empty lines are not rows.
    filled = [record for record in records if record != [""]]
    if not names and (not records or records[0] == [""]):
        return Records([], [], 0, False)
    header, rows = (list(names), filled) if names else (filled[0], filled[1:])
    # Some programs write delimiters after the last field.
    rows = [row[: len(header)] if not any(row[len(header) :]) else row for row in rows]
    read = [place for place, name in enumerate(header) if name in wanted]
    whole = [row for row in rows if len(row) == len(header) and not _NO_TEXT.search("".join(row[p] for p in read))]
    # A malformed record of several lines may have merged rows, which count too.
    is_plain &= not any("\n" in field for row in rows if len(row) != len(header) for field in row)
    return Records(header, whole, len(rows) - len(whole), is_plain)


def moment_of(text: str) -> tuple[Verdict, float | int | None]:
    """Read a time: a number is returned as a float, a date or time as an int of microseconds."""
    text = text.strip(" ")
    if _NUMBER.fullmatch(text):
        return Verdict.GOOD, float(text)
    if found := _ISO.fullmatch(text):
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            return Verdict.DOUBTFUL, None
        micros = (moment - _EPOCH) // timedelta(microseconds=1) + int((found[7] or ".0")[1:].ljust(6, "0"))
        if found[8] not in (None, "Z"):
            minutes = int(found[8][1:3]) * 60 + int(found[8][4:])
            micros -= minutes * 60_000_000 * (1 if found[8][0] == "+" else -1)
            if int(found[8][1:3]) > 14 or int(found[8][4:]) > 59:
                return Verdict.DOUBTFUL, None
        return Verdict.GOOD, micros
    known = re.search("[0-9]|inf|nan|epoch", text, re.IGNORECASE)
    return (Verdict.DOUBTFUL if known else Verdict.BAD), None


def is_missing(text: str | None) -> bool:
    return text is None or text.strip(BLANKS).lower() in NULLS


def is_integer(text: str) -> bool:
    trimmed = text.strip(BLANKS)
    if java := _JAVA_FLOAT.fullmatch(trimmed):
        n_digits, exponent = len(java[1]), int(java[2])
        return 7 <= exponent <= 14 and n_digits <= exponent and (exponent < 12 or n_digits >= exponent - 3)
    return _WHOLE.fullmatch(trimmed) is not None and -(2**63) <= int(trimmed.partition(".")[0]) < 2**63


def spelled(text: object) -> str:
    """Return an id in a form that is equal for ids that are the same integer or the same text."""
    trimmed = str(text).strip(BLANKS)
    if not is_integer(trimmed):
        return trimmed
    return str(int(Decimal(trimmed)) if "E" in trimmed else int(trimmed.partition(".")[0]))


def stars_of(text: str) -> tuple[Verdict, float]:
    if _STARS.fullmatch(text.strip(" ")):
        return Verdict.GOOD, float(text)
    if found := _COMMA.fullmatch(text.strip(" ")):
        return Verdict.GOOD, float(f"{found[1]}.{found[2]}")
    return (Verdict.DOUBTFUL if re.search("[0-9]|inf|nan", text, re.IGNORECASE) else Verdict.BAD), 0.0


def _unit(ticks: Iterable[float]) -> tuple[float | None, bool]:
    """Return the microseconds per tick, None if the ticks have several units, and whether their sizes show the unit."""
    sizes = set()
    for tick in map(abs, ticks):
        if tick:
            sizes.add(0 if tick < 1e8 else 1e6 if tick < 1e11 else 1e3 if tick < 1e14 else 1)
    units = sizes - {0}
    return (None if len(units) > 1 else float(max(units, default=1e6))), bool(units) or not sizes


def expected_of(
    values: Sequence[Values],
    n_bad: int = 0,
    min_rating: float | None = None,
    repeats: str = "last",
    may_be_integers: tuple[bool, bool] = (True, True),
) -> Expected:
    """Apply the rules to the values of the rows that parse; n_bad: rows that do not.

    may_be_integers: whether the column of users, and that of items, can hold integers.
    """
    expected = Expected(len(values) + n_bad, n_rejected=n_bad)
    read = [(value, *(moment_of(value.time) if value.time else (Verdict.BAD, None))) for value in values]
    expected.is_doubtful = any(what == Verdict.DOUBTFUL for _, what, _ in read)
    ticks = [moment for _, _, moment in read if isinstance(moment, float)]
    unit, is_known = _unit(ticks)
    has_text = any(isinstance(moment, int) for _, _, moment in read)
    expected.is_refused = unit is None or not (is_known or has_text)
    timed = [value for value, what, _ in read if what == Verdict.GOOD]
    users, items = _usable(v.user for v in timed), _usable(v.item for v in timed)
    expected.are_integers = (
        may_be_integers[0] and all(map(is_integer, users)),
        may_be_integers[1] and all(map(is_integer, items)),
    )
    # Floats among texts, as after pandas: they may be integers.
    expected.is_doubtful |= any(
        not are and _are_mostly_floats(ids) for are, ids in zip(expected.are_integers, (users, items), strict=True)
    )
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for value, what, moment in read:
        if what == Verdict.DOUBTFUL:
            continue
        rating, stars = (Verdict.GOOD, 0.0) if min_rating is None else stars_of(value.rating or "")
        expected.is_doubtful |= rating == Verdict.DOUBTFUL
        is_bad = any(id_ is None or is_missing(id_) or _lost(id_) for id_ in (value.user, value.item))
        if is_bad or moment is None or rating == Verdict.BAD or value.user is None or value.item is None:
            expected.n_rejected += 1
        elif min_rating is not None and stars < min_rating:
            expected.n_below += 1
        else:
            ids = [
                spelled(id_) if are else id_.strip(BLANKS)
                for id_, are in zip((value.user, value.item), expected.are_integers, strict=True)
            ]
            micros = moment if isinstance(moment, int) else round(moment * (unit or 1))
            found[ids[0], ids[1]].append(micros // 10**6)
    expected.events = {pair: sorted(seconds) if repeats == "all" else [max(seconds)] for pair, seconds in found.items()}
    return expected


def _usable(ids: Iterable[str | None]) -> list[str]:
    return [id_ for id_ in ids if id_ is not None and not is_missing(id_) and not _lost(id_)]


def _are_mostly_floats(ids: list[str]) -> bool:
    """Return whether at least half of the ids are whole numbers with a point, as 1.0, and less than half without."""
    n_floats = sum(bool(re.fullmatch(r"\s*-?[0-9]+\.0+\s*", id_)) for id_ in ids)
    n_whole = sum(bool(re.fullmatch(r"\s*-?[0-9]+\s*", id_)) for id_ in ids)
    return n_floats > 0 and 2 * n_floats >= len(ids) > 2 * n_whole


def _lost(text: str) -> bool:
    """Return whether a text exists but cannot be an id: a float that has lost digits, or text of two records."""
    java = _JAVA_FLOAT.fullmatch(text.strip())
    is_rounded = java is not None and (int(java[2]) >= 15 or 12 <= int(java[2]) > len(java[1]) + 3)
    # As Python writes floats from 2^53 to 10^16.
    is_large = re.fullmatch(r"\s*-?[0-9]{16}\.0\s*", text) is not None and abs(float(text)) >= 9_007_200e9
    return (
        is_rounded
        or is_large
        or _LOST_DIGITS.fullmatch(text) is not None
        or re.search("[\r\n]", text.strip(BLANKS)) is not None
    )
