"""Nights of every kind: the shop before the night, and its state after an undisturbed one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from tests.faults.shop import FIRST, Shop, State, empty_shop, histories, shop_after_first_night
from tests.support.shared import made_once


@dataclass(frozen=True)
class Scene:
    """A night, the shop and its state before it, the state after it, and its stages."""

    name: str
    night: int
    shop: Shop
    before: State
    after: State
    stages: tuple[str, ...]

    def begin(self, folder: Path) -> Shop:
        """Return a copy of the shop as it is before the night."""
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
    """Return a scene; each is made once per test run."""
    make, night = KINDS[name]
    before = Shop(made_once(f"before {name}", make))

    def run_whole(folder: Path) -> None:
        shop = before.copy(folder)
        shop.run(night)
        assert shop.leftovers() == []

    after = Shop(made_once(f"after {name}", run_whole))
    report = after.archive.report(FIRST + timedelta(days=night))
    assert report is not None
    stages = tuple(report["stages"])
    return Scene(name, night, before, before.state(), after.state(), (*stages, "publish"))
