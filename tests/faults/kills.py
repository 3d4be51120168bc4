"""Kill nights at chosen moments, and start them again until they finish."""

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
    """The moment at which a night is killed.

    seconds: after the start of the night, or of `stage` if it is given; change: number of the change of a file or
    folder before which the night is killed instead; is_plain: whether the night is started as a user does.
    """

    seconds: float = 0.0
    stage: str | None = None
    change: int | None = None
    is_plain: bool = False


def end(shop: Shop, scene: Scene, moment: Moment, number: signal.Signals = signal.SIGKILL) -> tuple[Child, int]:
    """Start a night and end it at a moment, unless it has ended before; return the process and its exit code."""
    child = start(shop.folder, night_of(scene.night), Limits(moment.change, is_plain=moment.is_plain))
    if moment.change is None:
        if moment.stage is not None:
            child.wait_for_line(f"{moment.stage}: started")
        child.pause(moment.seconds)
        child.send(number)
    return child, child.wait()


def kill_until_done(scene: Scene, folder: Path, moments: Iterable[Moment]) -> int:
    """Kill a night at each moment in turn, then let it finish: the result must be that of an undisturbed night.

    A reader polls all the time. If a run ends before its moment, the other moments are skipped. Returns the number of
    kills.
    """
    shop, n_kills = scene.begin(folder), 0
    with polled(shop, scene):
        for moment in moments:
            child, code = end(shop, scene, moment)
            if code != -signal.SIGKILL:
                # A run that is killed after its last step leaves nothing to do.
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
