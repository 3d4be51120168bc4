"""Nights that are killed at some moment and started again until they end."""

import shutil
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from batchrec.errors import NothingToDo
from tests.faults import counts
from tests.faults.children import Child, Limits, run, start
from tests.faults.reader import polled
from tests.faults.scenes import Scene
from tests.faults.shop import Shop, night_of


@dataclass(frozen=True)
class Moment:
    """When a night is ended: so long after its start, or after the line with which a stage begins; or at a change."""

    seconds: float = 0.0
    stage: str | None = None
    change: int | None = None
    is_plain: bool = False


def end(shop: Shop, scene: Scene, moment: Moment, number: signal.Signals = signal.SIGKILL) -> tuple[Child, int]:
    """Start a night and end it at a moment, if it has not ended by then; gives it with its exit code."""
    child = start(shop.folder, night_of(scene.night), Limits(moment.change, is_plain=moment.is_plain))
    if moment.change is None:
        if moment.stage is not None:
            child.wait_for_line(f"{moment.stage}: started")
        child.pause(moment.seconds)
        child.send(number)
    return child, child.wait()


def kill_until_done(scene: Scene, folder: Path, moments: Iterable[Moment]) -> int:
    """Kill a night at each moment in turn, then let it end: as if nothing had befallen it. Gives the number of kills.

    A reader polls all the time. Where a run ends before its moment the rest of the moments is not needed.
    """
    shop, n_kills = scene.begin(folder), 0
    with polled(shop, scene):
        for moment in moments:
            child, code = end(shop, scene, moment)
            if code != -signal.SIGKILL:
                # What was killed after all is done may have nothing left to do.
                assert code == 0 or (code == NothingToDo.exit_code and n_kills), child.said
                break
            n_kills += 1
            counts.add(f"kills in {child.stage}")
        else:
            code, last = run(shop.folder, night_of(scene.night))
            assert code in {0, NothingToDo.exit_code}, last.said
            counts.add("resumes", n_kills)
    assert shop.state() == scene.after
    assert shop.leftovers() == []
    shutil.rmtree(folder)
    return n_kills
