"""How a list differs from another one: items that came, that are gone, and that moved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from batchrec.scoring.recommender import Recommendation

Kind = Literal["in", "up", "down", "same"]


@dataclass(frozen=True)
class Move:
    """The move of an item; places: by how many ranks."""

    kind: Kind
    places: int = 0


@dataclass(frozen=True)
class Moves:
    """The moves of each row of a list, and the rows of the other list that are gone."""

    rows: list[Move]
    gone: list[Recommendation]

    @property
    def summary(self) -> str:
        """The numbers of items that came, that are gone and that moved, as a text."""
        kinds = [move.kind for move in self.rows]
        moved = kinds.count("up") + kinds.count("down")
        if not (self.gone or moved or "in" in kinds):
            return "the same list"
        return f"{kinds.count('in')} in, {len(self.gone)} out, {moved} moved"


def moves(before: Sequence[Recommendation], now: Sequence[Recommendation]) -> Moves:
    """Compare two lists. Ids are compared as text, because two models may have ids of different types."""
    ranks = {str(row.item_id): row.rank for row in before}
    listed = {str(row.item_id) for row in now}
    return Moves(
        [_move(ranks.get(str(row.item_id)), row.rank) for row in now],
        [row for row in before if str(row.item_id) not in listed],
    )


def _move(before: int | None, now: int) -> Move:
    if before is None:
        return Move("in")
    return Move("same" if before == now else "up" if now < before else "down", abs(before - now))
