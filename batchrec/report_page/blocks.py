"""The parts of which a section of the page is made. The template knows how each kind is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Badge:
    """A word in a cell that says whether something is good."""

    text: str
    is_good: bool


Cell = str | int | float | Badge | None


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    kind: ClassVar[str] = "note"
    text: str
    is_alarm: bool = False


@dataclass(frozen=True)
class Facts:
    """Figures by name."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row names the row. is_folded: whether it is shown only if a reader opens it."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart as SVG: the size of its view, and the elements in it.

    title: in a few words. description: the figures, for those who do not see it.
    """

    title: str
    description: str
    width: float
    height: float
    drawing: str


@dataclass(frozen=True)
class Charts:
    """Charts next to each other if the screen is wide enough."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Group:
    """Blocks under a heading of their own."""

    kind: ClassVar[str] = "group"
    heading: str
    blocks: Sequence["Block"]


Block = Note | Facts | Table | Charts | Group


@dataclass(frozen=True)
class Section:
    """A section of the page; anchor: its id."""

    anchor: str
    title: str
    blocks: Sequence[Block]


class MissingError(Exception):
    """Raised if a section has nothing to show; the message is a sentence that says what is missing."""
