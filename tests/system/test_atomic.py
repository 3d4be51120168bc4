"""Files and folders that appear complete or not at all."""

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import ConfigError
from batchrec.model.directory import replacing_model
from batchrec.system import temporaries
from batchrec.system.atomic import PAGE, TABLE, FileKind, check_writable_file, replacing


def test_an_unfinished_copy_is_private_and_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, out = tmp_path / "table", tmp_path / "out"
    table.write_bytes(b"a table")
    seen: list[Any] = []
    copyfile: Any = shutil.copyfile

    def copying(source: Path, to: Path) -> None:
        copyfile(source, to)
        # The first thing that any other command does.
        temporaries._remove_dead(out)
        seen.append((stat.S_IMODE(to.stat().st_mode), to.exists()))

    def on_another_disk(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(shutil, "copyfile", copying)
    monkeypatch.setattr(os, "link", on_another_disk)
    with replacing(out, contents=table):
        pass
    assert seen == [(0o600, True)]
    assert out.read_bytes() == b"a table"
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    former = os.umask(0)
    os.umask(former)
    return former


def test_a_disk_error_while_linking_is_not_a_reason_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table").write_bytes(b"a table")

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    with (
        pytest.raises(ConfigError, match="Input/output error"),
        replacing(tmp_path / "out", contents=tmp_path / "table"),
    ):
        pass


def test_a_file_of_another_user_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, out = tmp_path / "table", tmp_path / "out"
    table.write_bytes(b"a table")
    monkeypatch.setattr(os, "geteuid", lambda: table.stat().st_uid + 1)
    with replacing(out, contents=table):
        pass
    assert not out.samefile(table)
    assert out.read_bytes() == b"a table"


def test_a_replaced_folder_is_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def seen_fsync(opened: int) -> None:
        names = {path.stat().st_ino: path.name for path in (tmp_path, *tmp_path.rglob("*"))}
        name = names[os.fstat(opened).st_ino]
        steps.append("new" if name.endswith(".tmp") else name)
        fsync(opened)

    def seen_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    with replacing_model(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(b"w")
    assert steps == ["weights", "new", tmp_path.name, "rename", tmp_path.name]


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=f"{pipe}: is a device, a pipe or a socket"):
        check_writable_file(pipe)


@pytest.mark.parametrize("kind", [TABLE, PAGE], ids=["table", "page"])
def test_only_a_file_of_the_kind_is_replaced(kind: FileKind, tmp_path: Path) -> None:
    file = tmp_path / "batchrec.toml"
    for start in (b"", kind.start + b"\0"):
        file.write_bytes(start)
        check_writable_file(file, kind=kind)
    file.write_bytes(b"[score]\n")
    with pytest.raises(ConfigError, match=f"batchrec.toml: holds something other than {kind.name}"):
        check_writable_file(file, kind=kind)
    damaged = file.rename(tmp_path / f"damaged{kind.suffix}")
    check_writable_file(damaged, kind=kind)


def test_the_folder_that_a_link_lacks_is_named(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "none" / "table")
    with pytest.raises(ConfigError, match=f"folder {tmp_path / 'none'} does not exist"):
        check_writable_file(link)


def test_only_a_folder_without_files_of_others_is_replaced_by_a_model(tmp_path: Path) -> None:
    # dbt and browser extensions have a manifest.json too.
    for name in ("manifest.json", "encoder.onnx", ".hidden"):
        (tmp_path / name).touch()
    with replacing_model(tmp_path) as folder:
        (folder / "manifest.json").write_text("{}")
    (tmp_path / "stock.sql").touch()
    with pytest.raises(ConfigError, match=r"holds stock\.sql, which would be lost"), replacing_model(tmp_path):
        raise AssertionError("the block must not begin")
    assert (tmp_path / "stock.sql").exists()
