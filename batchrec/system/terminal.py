"""Tables that fit the width of a terminal, and colours. Pipes and files get plain text."""

import io
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from typing import Literal, TextIO

from batchrec.system.logs import redacted

# Of a pipe or a file, in which no row is wrapped.
_ANY_WIDTH = 1_000_000
# A word that is longer may be broken.
_LONGEST_WORD = 24


def shows_colours(stream: TextIO) -> bool:
    """Return whether a stream is a terminal whose user has not set NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def on_one_line(text: str) -> str:
    """Return text with spaces in place of what may break a line or control a terminal; names and ids may hold it."""
    return "".join(character if character.isprintable() else " " for character in text)


def format_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = (), alarms: Collection[int] = ()
) -> str:
    """Format a table as text for stdout, its secrets redacted: one line per row unless a terminal is too narrow.

    right: the numbers of the columns that are aligned to the right. alarms: those of the rows that need attention,
    which a terminal shows in red.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    widths = [max(map(_longest_word, cells)) for cells in zip(heads, *rows, strict=True)]
    for number, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if number in right else "left"
        table.add_column(Text(on_one_line(head)), justify=justify, min_width=widths[number], overflow="fold")
    for number, row in enumerate(rows):
        # Redacted here, because a terminal may break a secret over two lines.
        table.add_row(*(Text(on_one_line(redacted(cell))) for cell in row), style="red" if number in alarms else None)
    written = io.StringIO()
    # Words such as dates are not broken, even if the terminal then breaks the lines.
    least = sum(widths) + 2 * len(widths)
    width = max(least, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _ANY_WIDTH
    Console(file=written, width=width, force_terminal=shows_colours(sys.stdout), legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _longest_word(cell: str) -> int:
    """Return the length of the longest word of a cell, at most that of a long id."""
    return min(_LONGEST_WORD, max(map(len, cell.split()), default=0))
