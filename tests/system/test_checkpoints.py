"""Checkpoints, their folder, and the temporary files and folders of outputs."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from batchrec.errors import ConfigError
from batchrec.model.directory import replacing_model
from batchrec.system.atomic import replacing
from batchrec.system.checkpoints import CheckpointStore, broken_checkpoints
from batchrec.system.resume import checkpoint_dir_of, open_checkpoint_dir
from batchrec.tables.queries import connect
from tests.support.models import names_in

ARRAYS = {"scores": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7.0), "none": np.empty((0, 4), int)}
METADATA = {"key": "é\n", "rates": [0.1, 1 / 3], "n": 5, "on": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def store(folder: Path, fingerprint: bytes = b"\1" * 32) -> CheckpointStore:
    return CheckpointStore(folder, fingerprint)


def test_a_checkpoint_is_read_as_it_was_written(folder: Path) -> None:
    store(folder).write("one", ARRAYS, METADATA)
    checkpoint = store(folder).read("one")
    assert checkpoint is not None
    assert checkpoint.metadata == METADATA
    assert checkpoint.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(checkpoint.arrays[name], array)
        assert checkpoint.arrays[name].dtype == array.dtype
        assert checkpoint.arrays[name].shape == array.shape


def test_a_view_is_stored_in_its_own_order(folder: Path) -> None:
    turned = ARRAYS["scores"].T
    store(folder).write("one", {"turned": turned}, {})
    checkpoint = store(folder).read("one")
    assert checkpoint is not None
    assert np.array_equal(checkpoint.arrays["turned"], turned)


def test_a_checkpoint_that_was_never_written_is_none(folder: Path) -> None:
    assert store(folder).read("one") is None
    assert len(store(folder)) == store(folder).n_bytes() == 0
    store(folder).remove("one")
    assert not folder.exists()


def test_a_checkpoint_with_any_byte_changed_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store(folder).write("one", {"a": np.arange(3)}, {"key": 1})
    file = folder / "one.part"
    contents = file.read_bytes()
    for place in range(len(contents)):
        caplog.clear()
        file.write_bytes(contents[:place] + bytes([contents[place] ^ 1]) + contents[place + 1 :])
        assert store(folder).read("one") is None, place
        assert "one.part: damaged: its seal does not match" in caplog.text
    file.write_bytes(contents)
    assert store(folder).read("one") is not None


@pytest.mark.parametrize("length", [0, 1, 32, 64, 70, -1])
def test_a_checkpoint_cut_short_is_not_used(length: int, folder: Path) -> None:
    store(folder).write("one", {"a": np.arange(3)}, {})
    file = folder / "one.part"
    file.write_bytes(file.read_bytes()[:length])
    assert store(folder).read("one") is None


def test_a_checkpoint_of_another_fingerprint_or_name_is_not_used(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(folder).write("one", ARRAYS, METADATA)
    assert store(folder, b"\2" * 32).read("one") is None
    assert "made with other input, options or versions" in caplog.text
    (folder / "two.part").write_bytes((folder / "one.part").read_bytes())
    assert store(folder).read("two") is None
    assert store(folder).read("one") is not None


def test_a_checkpoint_of_an_earlier_layout_is_computed_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    # As version cc634ae wrote it: safetensors after the fingerprint of the input.
    fingerprint, contents = b"\1" * 32, save(ARRAYS, {"json": json.dumps(METADATA)})
    seal = sha256(json.dumps("one").encode() + fingerprint + contents).digest()
    folder.mkdir()
    (folder / "one.part").write_bytes(seal + fingerprint + contents)
    assert broken_checkpoints(folder) == []
    assert store(folder, fingerprint).read("one") is None
    assert "made with other input, options or versions. Computing it again" in caplog.text


def test_arrays_stay_as_they_were_read_if_the_checkpoint_is_replaced_or_removed(folder: Path) -> None:
    store(folder).write("one", ARRAYS, METADATA)
    checkpoint = store(folder).read("one")
    assert checkpoint is not None
    store(folder).write("one", {"scores": np.zeros((2, 3), np.float32)}, {})
    assert np.array_equal(checkpoint.arrays["scores"], ARRAYS["scores"])
    store(folder).remove("one")
    assert np.array_equal(checkpoint.arrays["scores"], ARRAYS["scores"])


def test_a_checkpoint_replaces_an_older_one_and_leaves_no_other_file(folder: Path) -> None:
    for n in (1, 2):
        (folder.parent / "checkpoints").mkdir(exist_ok=True)
        (folder / "one.new").write_bytes(b"half a checkpoint of a run that was killed")
        store(folder).write("one", {}, {"n": n})
    checkpoint = store(folder).read("one")
    assert checkpoint is not None
    assert checkpoint.metadata == {"n": 2}
    assert names_in(folder) == {"one.part"}


def test_only_the_owner_can_read_checkpoints(folder: Path) -> None:
    before = os.umask(0o022)
    try:
        store(folder).write("one", ARRAYS, METADATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "one.part").stat().st_mode) == 0o600


def test_a_checkpoint_that_cannot_be_written_is_an_error(folder: Path) -> None:
    folder.write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigError, match="checkpoints: cannot be written"):
        store(folder).write("one", ARRAYS, METADATA)


def interrupt(out: Path) -> Path:
    """Run a job that writes `out`, and interrupt it after its first checkpoint."""

    def job() -> None:
        with open_checkpoint_dir(out) as checkpoint_dir:
            assert checkpoint_dir is not None
            store(checkpoint_dir).write("one", {}, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    return checkpoint_dir_of(out)


def test_a_failed_job_leaves_its_checkpoints_and_a_successful_one_removes_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "one.part" in names_in(interrupt(out))
    with open_checkpoint_dir(out) as checkpoint_dir:
        assert checkpoint_dir is not None
        assert store(checkpoint_dir).read("one") is not None
    assert names_in(tmp_path) == set()


def test_a_job_that_fails_before_its_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    def job() -> None:
        with open_checkpoint_dir(tmp_path / "out"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert names_in(tmp_path) == set()


def test_a_second_run_at_the_same_time_has_no_checkpoint_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "batchrec")
    out = tmp_path / "out"
    with open_checkpoint_dir(out) as first:
        assert first is not None
        store(first).write("one", {}, {})
        with open_checkpoint_dir(out) as second:
            assert second is None
        assert store(first).read("one") is not None
        assert "another run is writing" in caplog.text
    assert names_in(tmp_path) == set()


def test_the_checkpoint_folder_is_next_to_the_target_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "out")
    assert checkpoint_dir_of(tmp_path / "link") == tmp_path.resolve() / "far" / ".out.progress"


def test_a_checkpoint_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".out.progress").symlink_to(tmp_path / "theirs")
    with (
        pytest.raises(ConfigError, match="belongs to another user, or is not a folder"),
        open_checkpoint_dir(tmp_path / "out"),
    ):
        pytest.fail("the block was entered")
    assert names_in(tmp_path / "theirs") == set()


def killed(program: str, folder: Path) -> None:
    """Run a program that kills itself by calling die()."""
    lines = f"import os\nfrom pathlib import Path\ndie = lambda: os.kill(os.getpid(), {int(signal.SIGKILL)})\n{program}"
    done = subprocess.run([sys.executable, "-c", lines], cwd=folder, check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL


KILLED_WITH_A_FILE = "from batchrec.system.atomic import replacing\nwith replacing(Path('out')): die()"
KILLED_WITH_A_FOLDER = "from batchrec.model.directory import replacing_model\nwith replacing_model(Path('out')): die()"
KILLED_WITH_A_SPILL_FOLDER = "from batchrec.tables.queries import connect\nwith connect(Path('.')): die()"


@pytest.mark.parametrize("program", [KILLED_WITH_A_FILE, KILLED_WITH_A_FOLDER, KILLED_WITH_A_SPILL_FOLDER])
def test_the_next_run_removes_what_a_killed_run_left(program: str, tmp_path: Path) -> None:
    killed(program, tmp_path)
    assert [name for name in names_in(tmp_path) if name.endswith(".tmp")]
    with replacing(tmp_path / "out") as temporary, connect(tmp_path):
        temporary.write_text("new", encoding="utf-8")
        assert len(names_in(tmp_path)) == 2
    assert names_in(tmp_path) == {"out"}


def test_files_of_live_runs_and_of_other_programs_are_not_removed(tmp_path: Path) -> None:
    others = {".out.0123abcd.tmp.bak", ".out.0123abc.tmp", ".other.0123abcd.tmp", "out.0123abcd.tmp"}
    for name in others:
        (tmp_path / name).write_text("mine", encoding="utf-8")
    (tmp_path / ".out.0123abcd.tmp").write_text("of a killed run", encoding="utf-8")
    with replacing(tmp_path / "out") as first, replacing(tmp_path / "out") as second:
        first.write_text("first", encoding="utf-8")
        second.write_text("second", encoding="utf-8")
        assert first != second
    assert (tmp_path / "out").read_text(encoding="utf-8") == "first"
    assert names_in(tmp_path) == others | {"out"}


@pytest.fixture(params=[0o077, 0o022, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_outputs_have_the_modes_of_the_umask_and_are_private_until_then(umask: int, tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as file, replacing_model(tmp_path / "folder") as folder:
        with file.open("w", encoding="utf-8") as opened:
            opened.write("new")
        (folder / "manifest.json").write_text("new", encoding="utf-8")
        assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(folder.stat().st_mode)) == (0o600, 0o700)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert names_in(tmp_path) == {"file", "folder"}
