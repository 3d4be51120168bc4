"""A folder of an object store as target."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from batchrec.errors import ConfigError, StoreError
from batchrec.targets import Target, open_target
from batchrec.targets.store_folder import StoreFolder
from tests.support.recs import NIGHT, recs_rows, write_recs
from tests.support.targets import read_store_folder

OUT = "memory://bucket/recs/"
DATES = {"night": NIGHT, "later": NIGHT + timedelta(days=1)}
PART = f"{OUT}run_date={NIGHT}/part-00000000-00000.parquet"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


@pytest.fixture
def target() -> Target:
    return open_target(OUT)


def publish(target: Target) -> str:
    table = write_recs(Path("recs.parquet"), recs_rows({1: [1, 2]}))
    with target.replacing(table):
        pass
    return table.sha256


def test_the_manifest_records_what_made_each_run_date(files: Any, target: Target) -> None:
    sha256 = publish(target)
    entry = json.loads(files.cat_file(f"{OUT}_manifest.json"))["run_dates"][str(NIGHT)]
    names = entry.pop("files")
    assert entry == {"rows": 2, "layout": "long", "run_id": "r1", "model_id": "m1", "sha256": sha256}
    assert [OUT.removeprefix("memory:/") + name for name in names] == files.find(f"{OUT}run_date={NIGHT}")


def test_parts_that_no_manifest_names_are_deleted_by_the_next_run_and_nothing_else(files: Any, target: Target) -> None:
    for path in (PART, f"{OUT}run_date={NIGHT}/notes.txt", "memory://bucket/recs2/run_date=2026-11-24/part-0.parquet"):
        files.pipe_file(path, b"x")
    publish(target)
    assert not files.exists(PART)
    assert len(files.find("memory://bucket/recs2")) == 1
    assert len(files.find(OUT)) == 3


def test_a_folder_of_something_else_is_refused(files: Any, target: Target) -> None:
    files.pipe_file(PART, b"left by a killed run")
    target.check_writable()
    files.pipe_file(f"{OUT}part-1.parquet", b"")
    with pytest.raises(
        ConfigError, match=r"^memory://bucket/recs/: holds part-1.parquet, and no _manifest.json of batch"
    ):
        target.check_writable()


@pytest.mark.parametrize(
    ("manifest", "message"), [(b"{", "is not JSON: "), (b"[]", "is not a manifest"), (b'{"a": 1}', "is not a manifest")]
)
def test_a_manifest_of_something_else_is_refused(files: Any, target: Target, manifest: bytes, message: str) -> None:
    files.pipe_file(f"{OUT}_manifest.json", manifest)
    files.pipe_file(PART, b"x")
    for use in (target.check_writable, target.sha256, lambda: publish(target)):
        with pytest.raises(StoreError, match=f"_manifest.json: {message}"):
            use()
    assert files.exists(PART)


def test_parts_that_cannot_be_deleted_do_not_fail_the_publication(
    files: Any, target: Target, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(target)

    def fail(*_: Any, **__: Any) -> None:
        raise PermissionError("not allowed")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(MemoryFileSystem, "rm_file", fail)
        sha256 = publish(target)
    assert "memory://bucket/recs/: old parts are not deleted; the next run does it: not allowed" in caplog.text
    assert target.sha256() == sha256
    assert len(files.find(OUT)) == 3
    publish(target)
    assert len(files.find(OUT)) == 2


@pytest.mark.parametrize("out", ["memory://bucket/recs", "memory://bucket/recs/?a=b", "ftp://host/recs/"])
def test_a_url_of_another_form_is_refused(out: str) -> None:
    with pytest.raises(ConfigError, match=r"^(memory|ftp)://.*(expected a folder|unknown parameter a|no target)"):
        open_target(out)


@pytest.mark.parametrize(
    "run_dates",
    ["[]", "null", '{"2026-11-20": {}}', '{"2026-11-20": {"files": null, "rows": 0, "layout": "long", "sha256": "x"}}'],
)
def test_a_manifest_that_an_editor_has_damaged_is_one_error(files: Any, target: Target, run_dates: str) -> None:
    files.pipe_file(f"{OUT}_manifest.json", f'{{"contract": "recs-folder/1", "run_dates": {run_dates}}}'.encode())
    for call in (target.check_writable, target.sha256, lambda: publish(target)):
        with pytest.raises(StoreError, match=r"_manifest.json: is damaged; expected run_dates, .*Restore it"):
            call()


def test_the_object_that_a_console_makes_for_a_folder_is_no_stranger(files: Any, target: Target) -> None:
    for name in ("", f"run_date={NIGHT}/"):
        files.store[f"/bucket/recs/{name}"] = MemoryFile(files, name)
    target.check_writable()
    publish(target)
    target.check_writable()


def test_a_folder_that_may_not_be_listed_is_found_before_any_work(
    files: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError("not allowed")

    publish(target)
    monkeypatch.setattr(MemoryFileSystem, "find", fail)
    with pytest.raises(StoreError, match="cannot be read: not allowed"):
        target.check_writable()


def test_replaced_parts_are_deleted_whatever_the_name_of_the_folder(files: Any) -> None:
    out = "memory://bucket/[a] *%20b/"
    for _ in range(2):
        publish(open_target(out))
    assert len([path for path in files.store if path.endswith(".parquet")]) == 1


def test_a_second_run_at_the_same_time_is_an_error_of_the_first(files: Any, target: Target) -> None:
    table, other = (write_recs(Path(f"{name}.parquet"), recs_rows({1: [1]}), date) for name, date in DATES.items())
    # The second deletes what it takes for the parts of a killed run.
    with (
        pytest.raises(StoreError, match="another run publishes here at the same time"),
        target.replacing(table),
        target.replacing(other),
    ):
        pass
    assert json.loads(files.cat_file(f"{OUT}_manifest.json"))["run_dates"].keys() == {str(DATES["later"])}
    with target.replacing(table):
        pass
    assert target.sha256() == other.sha256


@pytest.mark.parametrize("is_after_an_error", [False, True])
def test_what_another_run_publishes_while_unnamed_parts_are_deleted_stays(
    files: Any, target: Target, monkeypatch: pytest.MonkeyPatch, is_after_an_error: bool
) -> None:
    table, other = (write_recs(Path(f"{name}.parquet"), recs_rows({1: [1]}), date) for name, date in DATES.items())
    list_objects, of_other = StoreFolder._list, ExitStack()

    def overtaken(folder: StoreFolder, files: Any) -> list[str]:
        paths = list_objects(folder, files)
        of_other.close()
        return paths

    def start_other() -> None:
        of_other.enter_context(target.replacing(other))
        monkeypatch.setattr(StoreFolder, "_list", overtaken)

    def run() -> None:
        with target.replacing(table):
            if is_after_an_error:
                start_other()
                raise KeyError

    if not is_after_an_error:
        start_other()
    with pytest.raises((KeyError, StoreError)):
        run()
    assert read_store_folder(OUT).keys() == {str(DATES["later"])}


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_lost_object_of_an_earlier_date_does_not_keep_a_later_one_from_being_published(
    files: Any, target: Target, is_deleted: bool
) -> None:
    publish(target)
    (part,) = json.loads(files.cat_file(f"{OUT}_manifest.json"))["run_dates"][str(NIGHT)]["files"]
    if is_deleted:
        files.rm_file(OUT + part)
    else:
        files.pipe_file(OUT + part, b"no table")
    later = write_recs(Path("recs.parquet"), recs_rows({"a": [1]}), DATES["later"])
    with target.replacing(later):
        pass
    assert target.sha256() == later.sha256
