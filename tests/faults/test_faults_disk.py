"""Full disks and read-only folders give exit code 2 and one line, and leave tables and models as they were."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchrec.errors import ConfigError
from tests.faults import counts
from tests.faults.children import Child, Limits, run
from tests.faults.reader import polled
from tests.faults.scenes import KINDS, Scene, scene
from tests.faults.shop import Shop, night_of

pytestmark = pytest.mark.slow

CHANCE = random.Random(11)  # noqa: S311 - a sample, no secret
N_RUNS = 8 if counts.IS_LONG else 1


def tried(shop: Shop, scene: Scene, limits: Limits = Limits()) -> Child | None:
    """Run a night that may fail; return None if it succeeds. A failure must change nothing that readers see."""
    with polled(shop, scene):
        code, child = run(shop.folder, night_of(scene.night), limits)
    if code == 0:
        return None
    assert (code, len(child.errors)) == (ConfigError.exit_code, 1), child.said
    assert "Traceback" not in child.said
    counts.add(f"ENOSPC in {child.stage}")
    assert shop.state().tables == scene.before.tables
    assert shop.state().out == scene.before.out
    assert shop.state().in_use == scene.before.in_use
    return child


def assert_works_afterwards(shop: Shop, scene: Scene) -> None:
    with polled(shop, scene):
        shop.run(scene.night)
    assert shop.state() == scene.after
    assert shop.leftovers() == []


@pytest.mark.parametrize("kind", counts.some(KINDS, "carry-over"))
def test_a_limit_on_file_sizes_ends_a_night_but_not_the_next_one(kind: str, tmp_path: Path) -> None:
    for number in range(N_RUNS):
        shop = scene(kind).begin(tmp_path / str(number))
        limit = int(2 ** CHANCE.uniform(8, 17))
        if tried(shop, scene(kind), Limits(file_bytes=limit)) is not None:
            counts.add("ENOSPC runs, by RLIMIT_FSIZE")
            assert_works_afterwards(shop, scene(kind))


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """Mount a disk of a given size at a folder; yield a function that changes its size. Skip if mounting is refused."""
    folder.mkdir()

    def mount(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, text=True)  # noqa: PLW1510

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    mounted = mount("-o", f"size={kilobytes}k")
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")

    def resize(kilobytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", folder], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kind", counts.some(KINDS, "carry-over"))
def test_a_full_disk_ends_a_night_but_not_the_next_one(kind: str, tmp_path: Path) -> None:
    for number in range(N_RUNS):
        with small_disk(tmp_path / str(number), 20_000) as resize:
            shop = scene(kind).begin(tmp_path / str(number) / "shop")
            used = sum(-(-path.stat().st_size // 4096) * 4 + 4 for path in shop.folder.rglob("*") if path.is_file())
            resize(used + CHANCE.choice([8, 16, 32, 64, 96, 128, 192, 256]))
            child = tried(shop, scene(kind))
            resize(20_000)
            if child is not None:
                counts.add("ENOSPC runs, on a full disk")
                assert_works_afterwards(shop, scene(kind))


FOLDERS = [".", "nights", "models", "nights/run_date=2024-03-01"]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only: by its mode, or for root by an attribute of the file system."""
    is_root = os.geteuid() == 0
    if is_root:
        marked = subprocess.run(["chattr", "+i", folder], capture_output=True, text=True)  # noqa: PLW1510
        if marked.returncode:
            pytest.skip(f"root may write everywhere, and chattr +i fails: {marked.stderr.strip()}")
    else:
        folder.chmod(0o500)
    try:
        yield
    finally:
        if is_root:
            subprocess.run(["chattr", "-i", folder], check=True)
        else:
            folder.chmod(0o700)


@pytest.mark.parametrize("name", counts.some(FOLDERS, "nights"))
def test_a_night_with_a_read_only_folder_changes_nothing(name: str, tmp_path: Path) -> None:
    kind = scene("warm start" if counts.IS_LONG else "carry-over")
    shop = kind.begin(tmp_path / "shop")
    with read_only(shop.folder / name):
        child = tried(shop, kind)
    if child is not None:
        counts.add("read-only folders")
        assert_works_afterwards(shop, kind)
