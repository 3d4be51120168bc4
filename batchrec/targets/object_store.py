"""Calls to an object store that targets share: errors that name it, a probe, and what killed uploads have left."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from batchrec.errors import BatchrecError, StoreError, one_line
from batchrec.system.urls import Url, file_system

_log = logging.getLogger(__name__)

# Packages whose errors are those of a store; many of them derive from Exception itself.
_PACKAGES = {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"}


@contextmanager
def client_errors(url: Url, verb: str = "written") -> Iterator[None]:
    """Raise StoreError with the URL for an error of the store in the block; its client has retried the request."""
    try:
        yield
    except BatchrecError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _PACKAGES:
            raise
        raise StoreError(f"{url}: cannot be {verb}: {one_line(error) or type(error).__name__}") from error


def check_store(url: Url, probe: str) -> Any:
    """Return the file system of a store. Raises StoreError if the object `probe` cannot be written and deleted."""
    with client_errors(url):
        files = file_system(url)
        files.pipe_file(probe, b"batchrec writes this to know whether it may, and deletes it")
        files.rm_file(probe)
    return files


@contextmanager
def uploading(files: Any, path: str) -> Iterator[IO[bytes]]:
    """Yield an open file, which becomes the object at `path` if the block ends without an error: all of it at once."""
    file: IO[bytes] = files.open(path, "wb")
    try:
        yield file
    except BaseException:
        discard(file)
        raise
    file.close()


def discard(file: Any) -> None:
    """Drop an upload, which closing would complete."""
    try:
        file.discard()
    except Exception as error:
        _log.warning("%s: an upload that is not complete cannot be deleted: %s", file.path, one_line(error))
    finally:
        # The interpreter closes what is open when it forgets it. Files in memory do not let go of it.
        with suppress(AttributeError):
            file.closed = True


def remove_uploads(files: Any, url: Url, is_ours: Callable[[str], bool]) -> None:
    """Delete the uploads that killed runs have left: S3 shows them in no listing, and bills them.

    is_ours: whether a path, bucket and key, is one of the target. Other programs may be uploading to the bucket.
    """
    if not hasattr(files, "list_multipart_uploads"):
        return
    bucket = url.key.partition("/")[0]
    try:
        for upload in files.list_multipart_uploads(bucket):
            if is_ours(f"{bucket}/{upload['Key']}"):
                files.abort_mpu(bucket, upload["Key"], upload["UploadId"])
    except Exception as error:
        _log.warning("%s: uploads of killed runs cannot be listed or deleted: %s", url, one_line(error))
