"""Nights that are killed with SIGKILL, at random and before every change of a file, resume to the same table."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults import counts
from tests.faults.kills import Moment, kill_until_done
from tests.faults.scenes import KINDS, scene

pytestmark = pytest.mark.slow

CHANCE = random.Random(5)  # noqa: S311 - a sample, no secret
# Minimum number of changes of files and folders in a night.
MIN_CHANGES = 140
N_PARTS = 4
# Chains of kills per kind of night, and maximum number of kills in a chain.
N_CHAINS, MAX_KILLS = (6, 6) if counts.IS_LONG else (1, 3)


def random_moments(stages: tuple[str, ...]) -> list[Moment]:
    """Return random moments, some of them within a stage, because short stages would hardly be hit otherwise."""
    aimed = [Moment(CHANCE.uniform(0, 0.03), stage=CHANCE.choice(stages)) for _ in range(CHANCE.randint(1, 4))]
    others = [Moment(CHANCE.uniform(0.1, 3)) for _ in range(CHANCE.randint(1, MAX_KILLS - 1))]
    moments = [*aimed, *others][:MAX_KILLS]
    CHANCE.shuffle(moments)
    return moments


@pytest.mark.parametrize("kind", counts.some(KINDS, "warm start", "carry-over"))
def test_a_night_killed_at_random_resumes_to_the_same_table(kind: str, tmp_path: Path) -> None:
    night = scene(kind)
    with ThreadPoolExecutor(2) as pool:
        chains = [
            pool.submit(kill_until_done, night, tmp_path / str(number), random_moments(night.stages))
            for number in range(N_CHAINS)
        ]
    assert all(chain.result() >= 0 for chain in chains)


@pytest.mark.parametrize("kind", counts.some(KINDS, "repeated date"))
@pytest.mark.parametrize("part", range(N_PARTS if counts.IS_LONG else 1))
def test_a_night_killed_before_any_change_of_a_file_resumes_to_the_same_table(
    kind: str, part: int, tmp_path: Path
) -> None:
    night = scene(kind)

    def kill_at(change: int) -> bool:
        return kill_until_done(night, tmp_path / str(change), [Moment(change=change)]) > 0

    with ThreadPoolExecutor(2) as pool:
        if not counts.IS_LONG:
            half = MIN_CHANGES // 2
            assert all(pool.map(kill_at, (CHANCE.randrange(1, half), CHANCE.randrange(half, MIN_CHANGES))))
            return
        # Until a night ends before it reaches the change.
        n_kills, first = 0, 1 + part
        while all(killed := list(pool.map(kill_at, range(first, first + 6 * N_PARTS, N_PARTS)))):
            n_kills, first = n_kills + len(killed), first + 6 * N_PARTS
    assert n_kills + sum(killed) >= MIN_CHANGES // N_PARTS


@counts.long_form
def test_a_night_started_as_users_do_resumes_after_a_kill(tmp_path: Path) -> None:
    for number in range(4):
        moments = [Moment(CHANCE.uniform(0, 0.3), stage="train", is_plain=True), Moment(CHANCE.uniform(0, 1))]
        assert kill_until_done(scene("warm start"), tmp_path / str(number), moments) >= 1
