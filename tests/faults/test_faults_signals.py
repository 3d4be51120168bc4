"""SIGTERM and SIGINT at random moments end a night soon, and the same command resumes it."""

import random
import signal
from pathlib import Path

import pytest

from batchrec.errors import NothingToDo
from tests.faults import counts
from tests.faults.children import run, start
from tests.faults.reader import polled
from tests.faults.scenes import KINDS, scene
from tests.faults.shop import night_of

pytestmark = pytest.mark.slow

CHANCE = random.Random(13)  # noqa: S311 - a sample, no secret
N_SIGNALS = 12 if counts.IS_LONG else 1
# On an idle machine it is 10 s.
PROMISED_S = 60.0


@pytest.mark.parametrize("kind", counts.some(KINDS, "warm start", "carry-over"))
def test_a_terminated_night_ends_soon_and_resumes_to_the_same_table(kind: str, tmp_path: Path) -> None:
    for number in range(N_SIGNALS):
        shop = scene(kind).begin(tmp_path / str(number))
        stage = CHANCE.choice(["build-sequences", *scene(kind).stages, None])
        sent = CHANCE.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT])
        with polled(shop, scene(kind)):
            child = start(shop.folder, night_of(scene(kind).night))
            at_work = child.wait_for_line(f"{stage or 'build-sequences'}: started")
            child.pause(CHANCE.uniform(0, 1.0 if stage is None else 0.05))
            child.send(sent)
            code = child.wait(PROMISED_S)
            assert at_work or code == 0
            if code != 0:
                assert code == 128 + sent, child.said
                assert "Run the same command again to resume" in child.said
                assert "Traceback" not in child.said
                counts.add(f"{sent.name} in {child.stage}")
                counts.add(f"{sent.name}s, each followed by a resume")
                assert run(shop.folder, night_of(scene(kind).night))[0] in {0, NothingToDo.exit_code}
        assert shop.state() == scene(kind).after
        assert shop.leftovers() == []
