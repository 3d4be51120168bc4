"""The lock of the archive."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest
from filelock import FileLock

from batchrec.errors import ConfigError, LockedError
from batchrec.nightly.lock import locked
from tests.support.nights import Company


@pytest.mark.parametrize(("folder", "lock"), [(0o755, 0o600), (0o775, 0o660), (0o2770, 0o660)])
def test_only_users_who_may_write_to_the_archive_can_hold_its_lock(tmp_path: Path, folder: int, lock: int) -> None:
    nights = tmp_path / "nights"
    nights.mkdir()
    nights.chmod(folder)
    with locked(nights, "fail"):
        assert stat.S_IMODE((nights / ".lock").stat().st_mode) == lock


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_lock_file_made_by_root_belongs_to_the_owner_of_the_archive(tmp_path: Path) -> None:
    nights = tmp_path / "nights"
    nights.mkdir()
    os.chown(nights, 12345, 12346)
    with locked(nights, "fail"):
        assert ((nights / ".lock").stat().st_uid, (nights / ".lock").stat().st_gid) == (12345, 12346)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_without_locks_is_refused(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ConfigError, match=r"its disk has no locks, .* Pass --nights on another disk"):
        locked(tmp_path / "nights", "fail").__enter__()


def test_a_second_run_at_once_is_refused(shop: Company) -> None:
    shop.run()
    before = shop.state()
    with FileLock(shop.folder / "nights/.lock"), pytest.raises(LockedError, match="another run is in progress"):
        shop.run(1)
    assert shop.state() == before
    assert (shop.folder / "nights/.lock").exists()
    shop.run(1)
