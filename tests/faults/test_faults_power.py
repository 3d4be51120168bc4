"""After a power cut at any moment the current table is complete, and the next start makes all folders consistent."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from batchrec.errors import ConfigError, GateError, NothingToDo
from batchrec.nightly.archive import RECS, SIMILAR
from tests.faults import counts
from tests.faults.power import Disks, State, recorded
from tests.faults.small_nights import FIRST, SmallShop, new_shop, table_in
from tests.support.shared import made_once

pytestmark = pytest.mark.slow

DONE = {0, NothingToDo.exit_code}


def night(number: int) -> date:
    return FIRST + timedelta(days=number)


@dataclass(frozen=True)
class Scene:
    """The nights of a shop before a power cut, and the action that is cut off; night: the night of the action."""

    before: Callable[[SmallShop], None]
    action: Callable[[SmallShop], object]
    night: int
    is_rollback: bool = False


def nights_before(number: int) -> Callable[[SmallShop], None]:
    def before(shop: SmallShop) -> None:
        assert [shop.run(one) for one in range(number)] == [0] * number

    return before


def rolled_back(shop: SmallShop) -> None:
    nights_before(3)(shop)
    shop.roll_back()


SCENES = {
    "first night": Scene(nights_before(0), lambda shop: shop.run(0), 0),
    "carry-over": Scene(nights_before(1), lambda shop: shop.run(1), 1),
    "new model": Scene(nights_before(2), lambda shop: shop.run(2), 2),
    "old nights go": Scene(nights_before(4), lambda shop: shop.run(4), 4),
    "repeated date": Scene(nights_before(3), lambda shop: shop.run(2, "other"), 2),
    "earlier date": Scene(nights_before(4), lambda shop: shop.run(2, "other"), 2),
    "after a rollback": Scene(rolled_back, lambda shop: shop.run(3), 3),
    "rollback": Scene(nights_before(3), lambda shop: shop.roll_back(), 2, is_rollback=True),
}


@cache
def shop_before(scene: str) -> SmallShop:
    return SmallShop(made_once(f"power {scene}", lambda folder: SCENES[scene].before(new_shop(folder))))


def recording(scene: str, folder: Path, apart: bool) -> Disks:
    """Record the action of a scene, on disks of its own."""
    shutil.copytree(shop_before(scene).root, folder, symlinks=True)
    disks = Disks(folder)
    with recorded(disks, apart):
        SCENES[scene].action(SmallShop(folder))
    return disks


def crash_states(disks: Disks, chance: random.Random, most: int) -> Iterator[State]:
    """Yield each state that the disks may have at any moment before the end, without repeats."""
    known: set[str] = set()
    for state in chain.from_iterable(disks.states(moment, chance, most) for moment in disks.moments[:-1]):
        if (signature := state.signature()) not in known:
            known.add(signature)
            yield state


def seen_by_readers(shop: SmallShop) -> tuple[object, ...]:
    return shop.table_out(), shop.similar_table_out(), shop.model_in_use(), shop.archive.dates()


def check_always(shop: SmallShop) -> None:
    """Check what must hold at any moment, even before the next start: each table that readers see is complete."""
    shop.table_out()
    shop.similar_table_out()
    shop.model_in_use()
    for published in shop.archive.dates():
        for name in (RECS, SIMILAR):
            assert table_in(shop.archive.night(published) / name).night == published


def check_settled(shop: SmallShop) -> None:
    """Check what must hold after a run: the newest night's table is the current one, and its model is in use."""
    check_always(shop)
    out = shop.table_out()
    newest = max(shop.archive.dates(), default=None)
    if newest is None or not shop.archive.decisions.is_rolled_back(newest, str(shop.archive.recs_sha256(newest))):
        assert (out.night if out else None) == newest
        assert shop.similar_table_out() == out
        assert shop.model_in_use() == (out.model_id if out else None)
    assert shop.archive.decisions.dates() == []


def same_date_again(shop: SmallShop, scene: Scene) -> None:
    before = shop.table_out()
    assert shop.run(scene.night, "other") in DONE
    if scene.night < 4 and night(scene.night + 1) in shop.archive.dates():
        assert shop.table_out() == before
    check_settled(shop)
    check_clean(shop, scene)


def check_clean(shop: SmallShop, scene: Scene) -> None:
    # The temporary file of a rollback is removed by the next rollback.
    assert [name for name in shop.leftovers() if not (scene.is_rollback and "rolled-back" in name)] == []


def next_date(shop: SmallShop, scene: Scene) -> None:
    assert shop.run(scene.night + 1) in DONE
    check_settled(shop)
    check_clean(shop, scene)


def next_date_with_half_a_log(shop: SmallShop, scene: Scene) -> None:
    has_earlier = bool(shop.archive.dates() or shop.archive.decisions.dates())
    code = shop.run(scene.night + 1, "half")
    assert code == (GateError.exit_code if has_earlier else 0)
    check_settled(shop)


def rollback_and_the_same_date_again(shop: SmallShop, scene: Scene) -> None:
    """Roll back, then run the same date again: a night that was rolled back stays so, another one is published."""
    published = night(scene.night) in shop.archive.dates()
    log = table_in(shop.archive.table(night(scene.night))).log if published else "whole"
    try:
        to = shop.roll_back()
    except ConfigError:
        # No night to roll back to exists. Decisions stay.
        assert len(shop.archive.dates()) < 2 or shop.archive.current_nights()[:1] == shop.archive.dates()[:1]
        next_date(shop, scene)
        return
    assert shop.archive.decisions.dates() == []
    code = shop.run(scene.night, log)
    if published and to < night(scene.night):
        found = shop.table_out()
        assert (code, found.night if found else None) == (99, to)
    else:
        assert code in DONE


RECOVERIES = [same_date_again, next_date, next_date_with_half_a_log, rollback_and_the_same_date_again]


def survives(
    state: State, recover: Callable[[SmallShop, Scene], None], scene: Scene, folder: Path, apart: bool
) -> None:
    """Recover from a state of the disks. A second power cut, which loses all that is not synced, changes nothing."""
    disks = state.build(folder / "disks")
    shop = SmallShop(disks.root)
    check_always(shop)
    with recorded(disks, apart):
        recover(shop, scene)
    seen = seen_by_readers(shop), shop.archive.decisions.dates()
    lost = disks.states(disks.moments[-1], random.Random(0), 0)[0].build(folder / "lost").root  # noqa: S311 - a sample
    left = SmallShop(lost)
    assert (seen_by_readers(left), left.archive.decisions.dates()) == seen
    shutil.rmtree(folder)


# States to recover from, for each scene and each kind of disks.
N_POINTS = 40 if counts.IS_LONG else 4


@pytest.mark.parametrize("apart", [True, False], ids=["three disks", "one disk"])
@pytest.mark.parametrize("name", SCENES)
def test_the_next_start_after_a_power_cut_makes_all_consistent(name: str, apart: bool, tmp_path: Path) -> None:
    chance = random.Random(name)  # noqa: S311 - a sample, no secret
    disks, scene = recording(name, tmp_path / "night", apart), SCENES[name]
    states = list(crash_states(disks, chance, most=6))
    recoveries = [recover for recover in RECOVERIES if not scene.is_rollback or recover is not same_date_again]
    points = [(state, recover) for state in states for recover in recoveries]
    for state, recover in chance.sample(points, N_POINTS):
        try:
            survives(state, recover, scene, tmp_path / "after", apart)
        except BaseException as error:
            error.add_note(f"power gone before {state.moment.event}, kill: {state.is_kill}; then {recover.__name__}")
            raise
        counts.add("power cuts and kills, by the crash model")


@pytest.mark.parametrize("apart", [True, False], ids=["three disks", "one disk"])
@pytest.mark.parametrize("name", SCENES)
def test_a_finished_action_survives_a_power_cut(name: str, apart: bool, tmp_path: Path) -> None:
    disks = recording(name, tmp_path / "night", apart)
    shop = SmallShop(tmp_path / "night")
    seen = seen_by_readers(shop)
    for number, state in enumerate(disks.states(disks.moments[-1], random.Random(1), 20)):  # noqa: S311 - a sample
        left = SmallShop(state.build(tmp_path / str(number)).root)
        assert seen_by_readers(left) == seen
        assert left.archive.decisions.dates() == []
