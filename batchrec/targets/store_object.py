"""An object of an object store as target: one table, replaced by one PUT or one completion of a multipart upload."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from batchrec.config import TargetLayout
from batchrec.system.urls import Url, file_system
from batchrec.targets.object_store import check_store, client_errors, remove_uploads, uploading
from batchrec.targets.parts import parquet_writer, recorded_sha256
from batchrec.targets.rows import open_rows
from batchrec.targets.target import PublishedTable


@dataclass(frozen=True)
class StoreObject:
    """A Parquet table in one object, such as s3://bucket/recs.parquet."""

    url: Url
    layout: TargetLayout = "long"
    is_dated = False

    def __str__(self) -> str:
        return str(self.url)

    def check_writable(self) -> None:
        """Raise StoreError if no object can be written next to it."""
        check_store(self.url, f"{self.url.address}.probe")

    def check_table(self, table: PublishedTable) -> None:
        """Do nothing: the object holds one table."""

    def sync(self) -> None:
        """Do nothing: what a store has answered is durable."""

    def sha256(self) -> str | None:
        """Return the SHA-256 that the object's metadata record; None if there is no object."""
        with client_errors(self.url, "read"):
            files = file_system(self.url)
            if not files.exists(self.url.address):
                return None
            with files.open(self.url.address, "rb", cache_type="readahead") as file:
                return recorded_sha256(file)

    @contextmanager
    def replacing(self, table: PublishedTable) -> Iterator[None]:
        """Upload the rows; complete the upload, which replaces the object, if the block ends without an error."""
        with ExitStack() as upload:
            with client_errors(self.url):
                files = file_system(self.url)
                remove_uploads(files, self.url, self.url.key.__eq__)
                file = upload.enter_context(uploading(files, self.url.address))
                with (
                    open_rows(table, self.layout, is_dated=False) as rows,
                    parquet_writer(file, rows.schema, table.metadata) as writer,
                ):
                    for batch in rows:
                        writer.write_batch(batch)
            yield
            with client_errors(self.url):
                upload.close()

    def rolling_back(self, table: PublishedTable) -> AbstractContextManager[None]:
        """Do the same as `replacing`: the object holds one table."""
        return self.replacing(table)
