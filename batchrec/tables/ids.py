"""Spellings of ids: which texts are the same id, which are missing values, and which are integers.

Ids of the log are integers (int64) if all are whole numbers, otherwise text. As integers 17850, ' 17850' and '17850.0'
are the same id. As text, ids are compared without the blanks around them, because warehouses pad columns of type CHAR.
Tables show an id as the log spells it.
"""

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

# Padding of ids: spaces, line ends, tabs, no-break and ideographic spaces, byte order marks and zero bytes.
BLANKS = " \t\n\r\v\f\0\u00a0\u3000\ufeff"
# Databases and programs write these for a missing value; in lower case.
NULL_WORDS = ("\\n", "null", "none", "nan", "<na>", "nat")

# Java and Spark write the whole numbers of a column of floats like this: 1.2345678E7. Up to 15 digits are exact. From
# 13 digits on other programs round to about eight, so at most the last three may be zeros that are left out.
WHOLE_FLOAT = "-?(" + "|".join(rf"[1-9]\.[0-9]{{{n - 3 if n > 11 else 1},{n}}}E{n}" for n in range(7, 15)) + ")"
# Neither 007, nor more than the 19 digits of an int64.
WHOLE_NUMBER = rf"^(-?(0|[1-9][0-9]{{0,18}})(\.0*)?|{WHOLE_FLOAT})$"
# Programs that hold a long id as a float, and spreadsheets, write it like this: 1.2345678901234568e+18, 1,23E+15.
_ROUNDED = [r"[0-9]([.,][0-9]+)?[eE]\+[0-9]+", r"[1-9]\.[0-9]+E(1[5-9]|[2-9][0-9])"]
_ROUNDED += [rf"[1-9]\.[0-9]{{1,{n - 4}}}E{n}" for n in range(12, 15)]
# From 2^53 to 10^16 Python and DuckDB write a float like this; texts of decimals mostly have more zeros.
_ROUNDED += [r"9(007[2-9]|00[89][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})[0-9]{11}\.0"]
LOST_DIGITS = rf"^\s*-?({'|'.join(_ROUNDED)})\s*$"
_GREATEST = str(2**63 - 1)


def null_pattern(more_words: Iterable[str] = ()) -> str:
    """Return a regular expression for missing values, with or without blanks around them."""
    words = "|".join(map(re.escape, [*NULL_WORDS, *more_words]))
    # RE2 does not count the vertical tab as a blank.
    blanks = "[" + "".join(rf"\x{{{ord(blank):x}}}" for blank in BLANKS) + "]*"
    return f"(?i)^{blanks}({words})?{blanks}$"


def is_text(ids: pa.Array) -> bool:
    """Return whether ids are text."""
    return bool(pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type))


def without_blanks(ids: pa.Array) -> pa.Array:
    """Return the ids as they are compared: text without the blanks around it, integers unchanged."""
    return pc.utf8_trim(ids, characters=BLANKS) if is_text(ids) else ids


def as_ids(text: pa.Array, id_type: pa.DataType) -> pa.Array:
    """Return ids that are written as text in a type, int64 or string.

    text: (n,) string. Returns (n,); null if an id is missing or cannot be of that type; text without blanks around it.
    """
    trimmed = without_blanks(text.cast(pa.string()))
    is_missing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(["", *NULL_WORDS]))
    present = pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed)
    if not pa.types.is_integer(id_type):
        return present
    has_lost_digits = pc.match_substring_regex(present, LOST_DIGITS)
    present = _without_exponent(pc.if_else(has_lost_digits, pa.scalar(None, pa.string()), present))
    number = pc.replace_substring_regex(present, r"\.0*$", "")
    # Texts of the same length compare as numbers do.
    digits = pc.utf8_lpad(pc.utf8_ltrim(number, "-0"), len(_GREATEST), "0")
    fits = pc.and_(pc.equal(pc.utf8_length(digits), len(_GREATEST)), pc.less_equal(digits, _GREATEST))
    # Leading zeros are allowed here: among integers 007 can only mean 7.
    is_integer = pc.and_(pc.match_substring_regex(present, r"^-?[0-9]+(\.0*)?$"), fits)
    return pc.if_else(is_integer, number, pa.scalar(None, pa.string())).cast(id_type)


def _without_exponent(text: pa.Array) -> pa.Array:
    """Return texts with the digits of a whole number in place of a float like 1.2345678E7."""
    is_float = pc.match_substring_regex(text, f"^{WHOLE_FLOAT}$")
    floats = pc.if_else(is_float, text, pa.scalar(None, pa.string())).cast(pa.float64())
    return pc.coalesce(floats.cast(pa.int64()).cast(pa.string()), text)
