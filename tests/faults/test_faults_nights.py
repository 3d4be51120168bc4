"""Two runs at once, clocks that go back, logs that change after a kill, and parts with a changed byte."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batchrec.errors import ConfigError, LockedError, NothingToDo
from tests.faults import counts
from tests.faults.bad_inputs import flipped
from tests.faults.children import Child, run, start
from tests.faults.kills import Moment, end, kill_until_done
from tests.faults.reader import polled
from tests.faults.scenes import scene
from tests.faults.shop import FIRST, Shop, histories, night_of, shop_after_first_night

pytestmark = pytest.mark.slow

CHANCE = random.Random(17)  # noqa: S311 - a sample, no secret


def started(child: Child, stage: str) -> bool:
    return child.wait_for_line(f"{stage}: started")


def test_the_second_of_two_runs_is_refused_or_waits(tmp_path: Path) -> None:
    warm = scene("warm start")
    shop = warm.begin(tmp_path / "shop")
    with polled(shop, warm):
        first = start(shop.folder, night_of(warm.night))
        assert started(first, "train")
        with first.stopped():
            waiting = start(shop.folder, night_of(warm.night, "--lock", "wait"))
            code, refused = run(shop.folder, night_of(warm.night))
        assert code == LockedError.exit_code
        assert "another run is in progress" in refused.errors[0]
        assert first.wait() == 0
        # It finds that the same night is published already.
        assert waiting.wait() == 99
    assert shop.state() == warm.after
    assert shop.leftovers() == []
    counts.add("two runs at once")


def test_a_waiting_run_continues_if_the_other_is_killed(tmp_path: Path) -> None:
    warm = scene("warm start")
    shop = warm.begin(tmp_path / "shop")
    with polled(shop, warm):
        first = start(shop.folder, night_of(warm.night))
        assert started(first, "train")
        with first.stopped():
            waiting = start(shop.folder, night_of(warm.night, "--lock", "wait"))
            waiting.pause(0.2)
            first.send(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        assert waiting.wait() == 0
    assert shop.state() == warm.after
    assert shop.leftovers() == []
    counts.add("two runs at once")


@counts.long_form
def test_many_runs_at_once_publish_once(tmp_path: Path) -> None:
    carry = scene("carry-over")
    shop = carry.begin(tmp_path / "shop")
    with polled(shop, carry):
        children = [start(shop.folder, night_of(carry.night, "--lock", "wait")) for _ in range(4)]
        codes = sorted(child.wait() for child in children)
    assert codes == [0, 99, 99, 99]
    assert shop.state() == carry.after
    counts.add("two runs at once")


def test_a_clock_that_has_gone_back_is_noticed(tmp_path: Path) -> None:
    shop = shop_after_first_night().copy(tmp_path / "shop")
    ahead = datetime.now(UTC).date() + timedelta(days=400)
    os.rename(shop.folder / f"nights/run_date={FIRST}", shop.folder / f"nights/run_date={ahead}")  # noqa: PTH104
    before = shop.state()
    for night in ([], ["--run-date", FIRST + timedelta(days=1)]):
        code, child = run(shop.folder, ["run", "--log-format", "json", *night])
        assert (code, len(child.errors)) == (ConfigError.exit_code, 1)
        assert f"night {ahead} is published already" in child.errors[0]
        assert "move that night's folder away" in child.errors[0]
        assert shop.state() == before
    (shop.folder / f"nights/run_date={ahead}").rename(shop.folder / "moved-away")
    shop.write_log(histories(1))
    shop.run(1)
    assert shop.state().out != before.out
    counts.add("clocks that went back")


@counts.long_form
@pytest.mark.parametrize("stage", counts.some(("build-sequences", "train", "evaluate-new", "score", "check"), "score"))
def test_a_log_that_changes_after_a_kill_gives_the_table_of_the_new_log(stage: str, tmp_path: Path) -> None:
    warm = scene("warm start")
    shop = warm.begin(tmp_path / "shop")
    killed, _ = end(shop, warm, Moment(CHANCE.uniform(0, 0.01), stage=stage))
    if killed.stage == "publish":
        return  # another log no longer matters
    whole = shop.copy(tmp_path / "whole")
    # A model that was put in use before the kill stays in use; everything else is made again.
    shutil.rmtree(whole.folder / "nights" / f".run_date={FIRST + timedelta(days=warm.night)}", ignore_errors=True)
    for one in (shop, whole):
        one.write_log(histories(9))
        one.run(warm.night)
    assert shop.state().tables == whole.state().tables
    assert shop.state().in_use == whole.state().in_use
    assert shop.leftovers() == []
    counts.add("logs changed between two starts")


def parts(shop: Shop, name: str) -> list[str]:
    return [str(path.relative_to(shop.folder)) for path in shop.folder.glob(f"nights/.run_date=*/{name}")]


DAMAGED = {
    "the training": ("train", "training/*.part", 0.3),
    "the scores": ("score", "scoring/*.part", 0.0),
    "the sequences": ("train", "sequences.parquet", 0.0),
    "the new model": ("score", "model/*.safetensors", 0.0),
    "the new graph": ("score", "model/*.onnx", 0.0),
    "the finished table": ("check", "recs.parquet", 0.0),
}


@pytest.mark.parametrize("what", counts.some(DAMAGED, "the training"))
def test_a_part_with_a_changed_byte_is_made_again(what: str, tmp_path: Path) -> None:
    stage, name, seconds = DAMAGED[what]
    warm = scene("warm start")
    shop = warm.begin(tmp_path / "shop")
    with polled(shop, warm):
        child = start(shop.folder, night_of(warm.night))
        assert started(child, stage)
        child.wait_for(lambda: len(parts(shop, name)) > 0)
        child.pause(seconds)
        child.send(signal.SIGKILL)
        # The night may have finished before the kill, with nothing left to do.
        is_killed = child.wait() == -signal.SIGKILL
        for part in parts(shop, name) if is_killed else []:
            flipped(part, CHANCE.random())(shop.folder)
            counts.add("parts with a changed byte")
        assert run(shop.folder, night_of(warm.night))[0] in {0, NothingToDo.exit_code}
    assert shop.state() == warm.after
    assert shop.leftovers() == []


def test_a_damaged_table_of_last_night_is_not_carried_over(tmp_path: Path) -> None:
    carry = scene("carry-over")
    for damage in (flipped(f"nights/run_date={FIRST}/recs.parquet", CHANCE.random()), torn, lost_table):
        shop = carry.begin(tmp_path / str(CHANCE.random()))
        damage(shop.folder)
        shop.run(carry.night)
        night = FIRST + timedelta(days=carry.night)
        assert shop.state().tables[night] == carry.after.tables[night]
        assert shop.state().out == carry.after.out
        counts.add("parts with a changed byte")


def torn(folder: Path) -> None:
    (folder / f"nights/run_date={FIRST}/recs.parquet").write_bytes(b"PAR1")


def lost_table(folder: Path) -> None:
    (folder / f"nights/run_date={FIRST}/recs.parquet").unlink()


def in_one_file(shop: Shop) -> None:
    shop.write_log(histories(7), CHANCE)


def in_several_files(shop: Shop) -> None:
    """Write the log with shuffled rows, in several files."""
    shop.write_log(histories(7), CHANCE)
    header, *rows = (shop.folder / "ratings.csv").read_text(encoding="utf-8").splitlines()
    (shop.folder / "ratings.csv").unlink()
    (shop.folder / "ratings.csv").mkdir()
    for number in range(5):
        text = "\n".join([header, *rows[number::5]])
        (shop.folder / f"ratings.csv/{CHANCE.random()}.csv").write_text(f"{text}\n", encoding="utf-8")


SHUFFLES: dict[str, Callable[[Shop], None]] = {"in one file": in_one_file, "in several files": in_several_files}


@counts.long_form
@pytest.mark.parametrize("shuffle", counts.some(SHUFFLES, "in several files"))
def test_a_shuffled_log_gives_the_same_table(shuffle: str, tmp_path: Path) -> None:
    warm = scene("warm start")
    shop = warm.begin(tmp_path / "shop")
    SHUFFLES[shuffle](shop)
    shop.run(warm.night)
    assert shop.state() == warm.after
    counts.add("shuffled logs")


@counts.long_form
def test_a_night_that_is_killed_again_and_again_still_ends(tmp_path: Path) -> None:
    moments = [Moment(change=change) for change in (10, 20, 30, 40, 50)]
    assert kill_until_done(scene("carry-over"), tmp_path / "shop", moments) >= 4
