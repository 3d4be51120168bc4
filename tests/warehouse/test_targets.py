"""Targets in real stores pass the tests of every target."""

import os
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from batchrec.errors import StoreError
from tests.support.recs import NIGHT, moderate_recs
from tests.support.target_contract import *  # noqa: F403
from tests.support.target_contract import ONE, as_float32, publish
from tests.support.targets import Place, file_system, read_object, read_store_folder
from tests.warehouse.proxy import cutting
from tests.warehouse.servers import free_port


@pytest.fixture(
    params=[Place("/recs.parquet", read_object), Place("/a/recs/", read_store_folder)], ids=["object", "folder"]
)
def place(request: pytest.FixtureRequest, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    place: Place = request.param
    return replace(place, out=s3 + place.out)


@pytest.fixture
def dated(place: Place) -> Place:
    if not place.target.is_dated:
        pytest.skip("holds one table")
    return place


def test_a_missing_bucket_is_found_before_any_work(place: Place) -> None:
    missing = replace(place, out=place.out.replace("s3://bucket-", "s3://missing-"))
    with pytest.raises(StoreError, match=f"^{missing.out}: cannot be written: The specified bucket does not exist"):
        missing.target.check_writable()
    with pytest.raises(StoreError, match=f"^{missing.out}: cannot be "):
        publish(missing, ONE)


def test_no_credentials_are_found_before_any_work(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "missing")
    with pytest.raises(StoreError, match=f"^{place.out}: cannot be written: Unable to locate credentials"):
        place.target.check_writable()


def test_a_store_that_does_not_answer_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        # The client of AWS waits seconds between its tries.
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr("s3fs.S3FileSystem.retries", 1)
        with pytest.raises(StoreError, match=f"^{place.out}: cannot be written: Could not connect"):
            place.target.check_writable()
    assert [as_float32(ONE)] == list(place.read().values())


def test_a_connection_that_is_lost_is_made_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    table = moderate_recs(Path("recs.parquet"), 5_000, "m2")
    with monkeypatch.context() as patch, cutting(os.environ["AWS_ENDPOINT_URL"], 1, 100_000) as endpoint:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        with place.target.replacing(table):
            pass
    assert place.target.sha256() == table.sha256
    assert [len(rows) for rows in place.read().values()] == [50_000]


def test_connections_that_are_always_lost_leave_the_old_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = publish(place, ONE)
    table = moderate_recs(Path("recs.parquet"), 5_000, "m2")
    with monkeypatch.context() as patch, cutting(os.environ["AWS_ENDPOINT_URL"], 1_000, 100_000) as endpoint:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        # The clients wait seconds between their tries.
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr("s3fs.S3FileSystem.retries", 2)
        patch.setattr("s3fs.core.S3File.retries", 2)
        with (
            pytest.raises(StoreError, match=f"^{place.out}: cannot be written: ") as error,
            place.target.replacing(table),
        ):
            pass
    assert "\n" not in str(error.value)
    assert place.target.sha256() == sha256
    assert [as_float32(ONE)] == list(place.read().values())


def test_an_upload_that_a_killed_run_has_left_is_deleted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # Uploads larger than a block have several parts.
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": 5 << 20})
    table = moderate_recs(Path("recs.parquet"), 100_000, "m1")
    files, bucket = file_system(place.out), place.out.removeprefix("s3://").partition("/")[0]
    with pytest.raises(StoreError), place.target.replacing(table):
        raise StoreError
    assert files.list_multipart_uploads(bucket) == []
    path = place.out.removeprefix("s3://") + (f"run_date={NIGHT}/part-x" if place.target.is_dated else "")
    # An object's name may begin like that of another one.
    for key in (path, path.replace("recs", "other"), *(() if place.target.is_dated else (f"{path}.other",))):
        upload = files.open(key, "wb")
        upload.write(bytes(6 << 20))
        upload.closed = True
    with place.target.replacing(table):
        pass
    left = [upload["Key"] for upload in files.list_multipart_uploads(bucket)]
    assert len(left) == 2 - place.target.is_dated
    assert all("other" in key for key in left)
    assert place.target.sha256() == table.sha256
    assert sum(map(len, place.read().values())) == 1_000_000
