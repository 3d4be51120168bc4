"""One spelling of ids: which texts are the same id, which are none, and which are integers.

Ids of the log are integers (int64) if every one is a whole number, else text. As integers 17850, ' 17850' and
'17850.0' are one id. As text an id is what is left without the blanks around it: warehouses pad columns of type CHAR;
tables show it as the log spells it.
"""

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

# Spaces, line ends, tabs, no-break and ideographic spaces, byte order marks and zero bytes: what pads ids.
BLANKS = " \t\n\r\v\f\0\u00a0\u3000\ufeff"
# What databases and programs write for a missing value, in lower case.
NULL_WORDS = ("\\n", "null", "none", "nan", "<na>", "nat")

# Not 007, nor beyond the 19 digits of an int64.
WHOLE_NUMBER = r"^-?(0|[1-9][0-9]{0,18})(\.0*)?$"
_GREATEST = str(2**63 - 1)


def null_pattern(more_words: Iterable[str] = ()) -> str:
    """Return a regular expression of the texts that are no id, with blanks around them or not."""
    words = "|".join(map(re.escape, [*NULL_WORDS, *more_words]))
    # RE2 takes no vertical tab for a blank.
    blanks = "[" + "".join(rf"\x{{{ord(blank):x}}}" for blank in BLANKS) + "]*"
    return f"(?i)^{blanks}({words})?{blanks}$"


def is_text(ids: pa.Array) -> bool:
    """Tell whether ids are text."""
    return bool(pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type))


def without_blanks(ids: pa.Array) -> pa.Array:
    """Return the ids as they are compared: text without the blanks around it, integers as they are."""
    return pc.utf8_trim(ids, characters=BLANKS) if is_text(ids) else ids


def as_ids(text: pa.Array, id_type: pa.DataType) -> pa.Array:
    """Return ids written as text in a type, int64 or string; null if one is missing, or cannot be of that type.

    text: (n,) string. Returns (n,), text without the blanks around it.
    """
    trimmed = without_blanks(text.cast(pa.string()))
    is_missing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(["", *NULL_WORDS]))
    found = pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed)
    if not pa.types.is_integer(id_type):
        return found
    number = pc.replace_substring_regex(found, r"\.0*$", "")
    # As texts of one length, numbers compare as they do.
    digits = pc.utf8_lpad(pc.utf8_ltrim(number, "-0"), len(_GREATEST), "0")
    fits = pc.and_(pc.equal(pc.utf8_length(digits), len(_GREATEST)), pc.less_equal(digits, _GREATEST))
    # Zeros in front are no mistake here: among integers 007 can be nothing but 7.
    is_integer = pc.and_(pc.match_substring_regex(found, r"^-?[0-9]+(\.0*)?$"), fits)
    return pc.if_else(is_integer, number, pa.scalar(None, pa.string())).cast(id_type)
