"""Nights of every kind: the shop before one, and what it looks like after one that nothing has befallen."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from tests.faults.shop import FIRST, Shop, State, empty_shop, histories, shop_after_first_night
from tests.support.models import scratch


@dataclass(frozen=True)
class Scene:
    """A night to come, the state before and after it, and the stages it has."""

    name: str
    night: int
    shop: Shop
    before: State
    after: State
    stages: tuple[str, ...]

    def begin(self, folder: Path) -> Shop:
        """Give a shop of its own, as it is before the night."""
        return self.shop.copy(folder)


def _first(folder: Path) -> Shop:
    return empty_shop(folder)


def _warm_start(folder: Path) -> Shop:
    shop = shop_after_first_night().copy(folder)
    shop.write_log(histories(7))
    return shop


def _carry_over(folder: Path) -> Shop:
    shop = shop_after_first_night().copy(folder)
    shop.write_log(histories(1))
    return shop


def _repeated_date(folder: Path) -> Shop:
    shop = _carry_over(folder)
    shop.run(1)
    shop.write_log(histories(3))
    return shop


KINDS: dict[str, tuple[Callable[[Path], Shop], int]] = {
    "first": (_first, 0),
    "warm start": (_warm_start, 7),
    "carry-over": (_carry_over, 1),
    "repeated date": (_repeated_date, 1),
}


@cache
def scene(name: str) -> Scene:
    """Make a scene once for all tests."""
    make, night = KINDS[name]
    shop = make(scratch() / f"before {name}")
    whole = shop.copy(scratch() / f"after {name}")
    whole.run(night)
    assert whole.leftovers() == []
    report = whole.archive.report(FIRST + timedelta(days=night))
    assert report is not None
    stages = tuple(report["stages"])
    return Scene(name, night, shop, shop.state(), whole.state(), (*stages, "publish"))
