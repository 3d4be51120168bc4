"""The texts of the cells of a table: numbers are short, and the points of a column of floats are below each other."""

from collections.abc import Sequence

from batchrec.report_page.blocks import Badge, Cell


def is_numeric(cell: Cell) -> bool:
    """Return whether a cell holds a number or a share, or lacks one."""
    return cell is None or isinstance(cell, int | float) or (isinstance(cell, str) and cell.endswith("%"))


def shown(cell: Cell) -> str:
    """Return the text of a cell: a number with at most 4 digits behind the point, a dash for None."""
    if cell is None:
        return "–"
    if isinstance(cell, Badge):
        return cell.text
    if isinstance(cell, float):
        # Four digits behind the point, or four that count for smaller numbers.
        text = f"{cell:,.4f}" if abs(cell) >= 0.001 or cell == 0 else f"{cell:.4g}"
        return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def shown_rows(rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """Return the texts of the cells of a table."""
    return [list(texts) for texts in zip(*map(_shown_column, zip(*rows, strict=True)), strict=True)]


def _shown_column(cells: Sequence[Cell]) -> list[str]:
    """Return the texts of a column: all floats with as many digits behind the point as the one that has most."""
    texts = [shown(cell) for cell in cells]
    floats = [text for text, cell in zip(texts, cells, strict=True) if isinstance(cell, float)]
    if any("e" in text for text in floats) or not all(cell is None or isinstance(cell, float) for cell in cells):
        return texts
    n_digits = max((len(text.partition(".")[2]) for text in floats), default=0)
    return [text if cell is None else _padded(text, n_digits) for text, cell in zip(texts, cells, strict=True)]


def _padded(text: str, n_digits: int) -> str:
    """Return a number with zeros behind the point until it has that many digits there."""
    whole, _, behind = text.partition(".")
    return f"{whole}.{behind:0<{n_digits}}" if n_digits else whole
