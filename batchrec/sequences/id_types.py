"""The type of a log's ids: integers if every id of a column is one, otherwise text, with a warning if mixed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from batchrec.config import IdType, SequencesConfig
from batchrec.sources import FLOATS, Reject, Source, shown_files

Role = Literal["user", "item"]

# A list or an object that a program has written as text: [10, 20], {10}, {"id": 10}, (10, 20), or numbers between
# commas, bars, semicolons or blanks, each with up to four letters before it: N10 N20, or with a quantity: 10:2;20:1.
# Blanks also part thousands. Between commas and semicolons any codes with digits: SKU-10,B07XJ. Bars are in single ids.
_CODE = r"[A-Za-z]{0,4}\d+([-:]\d+)?"
_ANY_CODE = r"[\w:.-]*\d[\w:.-]*"
_BLANKS = r"[\s\x{a0}\x{2009}\x{202f}]"
# Points and apostrophes part thousands too, as in German and Swiss: 1.000.034, 1'000'034.
_THOUSANDS = r"[1-9]\d{0,2}([.'\x{2019}]\d{3})+"
_CODES = rf"{_CODE}((\s*[,|;]\s*|{_BLANKS}+){_CODE})+|{_ANY_CODE}(\s*[,;]\s*{_ANY_CODE})+"
SEVERAL_IDS = rf"^\s*(\[.*\]|\{{(\d*|.*[,:].*)\}}|\(.*,.*\)|{_CODES}|{_THOUSANDS})\s*$"
# If fewer ids of a column of texts look like several, it is a coincidence.
LIKELY_SEVERAL = 0.02
# Whole numbers in digits that are parted in threes by one character, and with zeros behind a decimal comma.
PARTED_DIGITS, COMMA_AND_ZEROS = r"\s*-?[1-9]\d{0,2}([^\w-]\d{3})+\s*", r"\s*-?\d+,0+\s*"
# Bytes that spell no text, such as numbers in binary.
BINARY_IDS = r"[\x01-\x08\x0e-\x1b]|\x00\x00[^\x00]"
# Other quotes than those of the file, or a spreadsheet's marks of a text: '10', ="10", '10 without a second quote.
QUOTED_IDS = r"""^\s*(=?"[^"]*"|'[^']*'|'[\w.-]+|`[^`]*`|\x{201c}[^\x{201d}]*\x{201d})\s*$"""
# As Python and MongoDB show an id of bytes or of another type: b'10', ObjectId(65...).
SHOWN_IDS = r"""^\s*(b'[^']*'|b"[^"]*"|(ObjectId|UUID|Decimal|NumberLong)\(.*\))\s*$"""
# A column of floats that became text, as in pandas if an integer is missing; unlike codes of which some have a point.
FLOAT_IDS, WHOLE_IDS = r"^\s*-?\d+\.0+\s*$", r"^\s*-?\d+\s*$"
# In lower case. Some of them can be ids, so they are a warning.
LIKELY_NULL_WORDS = (
    "n/a",
    "#n/a",
    "#ref!",
    "#value!",
    "#name?",
    "#div/0!",
    "#num!",
    "#null!",
    "na",
    "nil",
    "undefined",
    "(null)",
    "[null]",
    "<null>",
    "(not set)",
    "(blank)",
    "missing",
    "unknown",
    "-",
    "?",
    ".",
)
# Ids of these types become integers if every one is an integer; ids of other types are text. Untyped ids can be both.
_NUMBERS = {"null", "decimal", "hugeint", "uhugeint", *FLOATS}
_NUMBERS |= {f"{sign}{size}" for sign in ("", "u") for size in ("tinyint", "smallint", "integer", "bigint")}


@dataclass(frozen=True)
class _Column:
    """The ids of one role: whether they are read as integers, and how many fit that or do not."""

    are_integers: bool
    wanted: IdType
    n_fit: int = 0
    n_unfit: int = 0

    @property
    def is_to_change(self) -> bool:
        """Whether the ids must be read again as text."""
        return self.are_integers and self.n_unfit > 0 and self.wanted == "auto"


@dataclass(frozen=True)
class IdTypes:
    """The types as which the ids of users and items are read."""

    users: _Column
    items: _Column

    @classmethod
    def expected(cls, sources: Sequence[Source], user: str, item: str, config: SequencesConfig) -> "IdTypes":
        """Return integers for each role if the types of its columns allow it and the config does not forbid it."""
        return cls(_expected(sources, user, config.user_id_type), _expected(sources, item, config.item_id_type))

    def fitting(self, checks: Sequence[dict[str, Any]]) -> "IdTypes":
        """Return the types with the counts of ids that fit, from the rows of sql/sequences/load_checks.sql."""
        columns = []
        for column, role in ((self.users, "user"), (self.items, "item")):
            n_fit = sum(row["n_events"] for row in checks if row[f"{role}_fits"] and row[f"has_{role}"])
            n_unfit = sum(row["n_events"] for row in checks if not row[f"{role}_fits"])
            columns.append(replace(column, n_fit=n_fit, n_unfit=n_unfit))
        return IdTypes(*columns)

    @property
    def to_change(self) -> list[Role]:
        """The roles whose ids must be read again as text."""
        roles: list[Role] = ["user"] if self.users.is_to_change else []
        return [*roles, "item"] if self.items.is_to_change else roles

    def changed(self) -> "IdTypes":
        """Return the types for the next read."""
        return IdTypes(
            *(replace(c, are_integers=c.are_integers and not c.is_to_change) for c in (self.users, self.items))
        )

    @property
    def guessed_texts(self) -> list[Role]:
        """The roles whose ids are text without an option that says so."""
        roles: tuple[Role, Role] = ("user", "item")
        return [role for role in roles if not self._of(role).are_integers and self._of(role).wanted == "auto"]

    def unfit(self, role: Role) -> int:
        """Return how many ids of a role are not integers; 0 if none is an integer."""
        column = self._of(role)
        return column.n_unfit if column.n_fit else 0

    def warning(self, role: Role, example: Reject) -> str | None:
        """Return a warning that some ids of a role make all of them text; None if not one is an integer."""
        column = self._of(role)
        if column.n_fit == 0:
            return None
        n_ids = column.n_fit + column.n_unfit
        return (
            f"{example}: {column.n_unfit} of {n_ids} {role} ids are not integers, so all {role} ids are text. "
            f"Pass --{role}-id-type integer to reject such rows, or text to confirm"
        )

    def _of(self, role: str) -> _Column:
        return self.users if role == "user" else self.items

    def has_blanks(self, role: str) -> bool:
        """Return whether ids of a role are text and some have blanks around them."""
        column = self._of(role)
        return not column.are_integers and column.n_unfit > 0


def _expected(sources: Sequence[Source], column: str, wanted: IdType) -> _Column:
    if wanted != "auto":
        return _Column(wanted == "integer", wanted)
    return _Column(all(source.is_untyped or source.type_of(column) in _NUMBERS for source in sources), wanted)


def mixed_types(sources: Sequence[Source], column: str) -> str | None:
    """Return a warning if a column is text in some files and a number in others; None if not."""
    typed = [source for source in sources if not source.is_untyped and source.type_of(column) != "null"]
    texts = [file for source in typed if source.type_of(column) not in _NUMBERS for file in source.places]
    numbers = [file for source in typed if source.type_of(column) in _NUMBERS for file in source.places]
    if not texts or not numbers:
        return None
    return f"column {column!r} is text in {shown_files(texts)} and a number in {shown_files(numbers)}: all ids are text"
