"""Objects of a store, here fsspec's in memory: found like files, copied, and named by their URL in every message."""

import errno
import gzip
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from batchrec.errors import ConfigError, InputError, StoreError
from batchrec.sources.input_files import spooled_as, with_urls
from batchrec.sources.object_store import ObjectStore
from batchrec.sources.text_tables import read_text_table
from tests.conftest import BuildSequences
from tests.faults import mutated_parquet
from tests.support.log_files import HEADER, T, fails

pytestmark = pytest.mark.usefixtures("detected_unit")


@pytest.fixture
def bucket() -> Iterator[str]:
    """Return the URL of an empty bucket in memory, without a slash at its end."""
    name = f"bucket-{uuid4().hex[:12]}"
    files = fsspec.filesystem("memory")
    files.mkdir(f"/{name}")
    yield f"memory://{name}"
    files.rm(f"/{name}", recursive=True)


def put(url: str, contents: str | bytes) -> None:
    fsspec.filesystem("memory").pipe(url, contents.encode() if isinstance(contents, str) else contents)


def parquet(**columns: list[Any]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


def no_copy_is_named(text: str) -> bool:
    return "batchrec-objects" not in text and ".object" not in text and "%3A" not in text


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a b/dt=2024-05-01/ü.parquet",
        f"s3://bucket/{'long/' * 190}x",
        "s3://b/a",
        "s3://b/a/b",
        "s3://b/../x",
    ],
)
@pytest.mark.parametrize("folder", ["/spool", "/my files/.batchrec.0123abcd.tmp"])
def test_a_text_that_names_a_copy_names_its_url(url: str, folder: str) -> None:
    copy = spooled_as(url, Path(folder))
    assert all(len(part) <= 255 for part in copy.path.parts)
    assert copy.path.is_relative_to(folder)
    assert str(copy) == url
    assert (
        with_urls(f'Error: and/or "{copy.path}" is bad\nfile = {copy.path}\n')
        == f'Error: and/or "{url}" is bad\nfile = {url}\n'
    )
    assert spooled_as("s3://b/a", Path(folder)).path not in spooled_as("s3://b/a/b", Path(folder)).path.parents


@pytest.mark.parametrize("where", ["log/", "log", "log/**/*.csv*", "log/*/*"])
def test_a_folder_or_glob_is_read_with_its_partitions(build: BuildSequences, bucket: str, where: str) -> None:
    put(f"{bucket}/log/dt=2024-01-01/a.csv", "userId,movieId\n1,2\n")
    put(f"{bucket}/log/dt=2024-01-02/b.csv.gz", gzip.compress(b"userId,movieId\n1,3\n"))
    put(f"{bucket}/log/dt=2024-01-03/c.csv.zst", pa.compress(b"userId,movieId\n1,4\n", "zstd", asbytes=True))
    outcome = build("--ratings", f"{bucket}/{where}", "--timestamp-column", "dt")
    assert outcome.histories == {1: [2, 3, 4]}, outcome.stderr
    assert outcome.times == [1704067200, 1704153600, 1704240000]


def test_objects_and_files_are_read_together(build: BuildSequences, bucket: str) -> None:
    put(f"{bucket}/a.csv", f"{HEADER}1,2,{T}\n")
    put(f"{bucket}/b.parquet", parquet(userId=[1], movieId=[3], timestamp=[T + 1]))
    Path("c.csv").write_text(f"{HEADER}1,4,{T + 2}\n", encoding="utf-8")
    other_spelling = f"{bucket}/b.parquet".replace("memory://", "Memory://")
    assert build("--ratings", f"{bucket}/a.csv", "--ratings", other_spelling, "--ratings", "c.csv").histories == {
        1: [2, 3, 4]
    }


def test_objects_of_a_folder_that_are_not_read_are_named_in_one_warning(build: BuildSequences, bucket: str) -> None:
    for name in ("a.csv", "b.csv.bz2", "_d.csv", "_SUCCESS", ".x/e.csv"):
        put(f"{bucket}/log/{name}", f"{HEADER}1,2,{T}\n")
    put(f"{bucket}/log/empty.csv", "")
    outcome = build("--ratings", f"{bucket}/log/")
    assert outcome.histories == {1: [2]}
    unread, empty = outcome.stderr.splitlines()
    for name in ("b.csv.bz2", "_d.csv", ".x/e.csv"):
        assert f"{bucket}/log/{name}" in unread
    assert "_SUCCESS" not in unread
    assert f"{bucket}/log/empty.csv" in empty
    assert no_copy_is_named(outcome.stderr)


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("_delta_log/00.json", "is a table of Delta Lake, by a URL like delta+memory://"),
        (".hoodie/h", "is a table of Apache Hudi, with an engine"),
        ("schema/schema-0", "is a table of Apache Paimon, with an engine"),
        ("metadata/v1.metadata.json", "is a table of Apache Iceberg, by a URL like iceberg://catalog"),
    ],
)
@pytest.mark.parametrize("where", ["plays/", "plays/*/*.csv", "plays/dt=1/p.csv", "plays/dt=1/", ""])
def test_a_table_of_a_table_format_is_refused(
    build: BuildSequences, bucket: str, mark: str, words: str, where: str
) -> None:
    put(f"{bucket}/plays/dt=1/p.csv", f"{HEADER}1,2,{T}\n")
    put(f"{bucket}/plays/{mark}", "{}")
    outcome = build("--ratings", f"{bucket}/{where}")
    fails(outcome, f"{bucket}/plays: ", *words.split(", "))


def test_bad_rows_are_named_by_url_and_line(build: BuildSequences, bucket: str) -> None:
    put(f"{bucket}/a.csv", f"{HEADER}1,2,{T}\n1,3,soon\n")
    put(f"{bucket}/b.csv", f'{HEADER}1,"2,{T}\n1,3,{T}\n1,4",{T}\n2,2,{T}\n')
    put(f"{bucket}/c.csv", f"{HEADER}3,2,{T}\n1,3,{T},9\n")
    outcome = build("--ratings", f"{bucket}/", "--max-bad-rows", "9")
    assert outcome.histories == {1: [2], 2: [2], 3: [2]}, outcome.stderr
    rejects = Path("sequences.rejects.csv").read_text(encoding="utf-8").splitlines()
    assert {line.rpartition(",malformed")[0] or ",".join(line.split(",")[:2]) for line in rejects[1:]} == {
        f"{bucket}/a.csv,3",
        f"{bucket}/b.csv,2",
        f"{bucket}/b.csv,3",
        f"{bucket}/b.csv,4",
        f"{bucket}/c.csv,3",
    }
    fails(build("--ratings", f"{bucket}/a.csv"), f"{bucket}/a.csv: line 3:", "soon")


@pytest.mark.parametrize(
    ("name", "contents", "text"),
    [
        ("x.csv", "userId,movieId\n1,2\n", "no column 'timestamp'"),
        ("x.parquet", b"PAR1 and no more", "not a Parquet file"),
        ("x.csv.gz", gzip.compress(HEADER.encode() * 100, mtime=0)[:-5], "damaged or cut off"),
        ("x.csv", "", "the file is empty"),
        ("x.zip", b"PK\x03\x04" + bytes(range(256)), "a zip archive"),
        ("x.parquet", parquet(userId=[[1]], movieId=[2], timestamp=[T]), "values of type list"),
        ("x.parquet", parquet(userId=[b"\xff"], movieId=[2], timestamp=[T]), "not UTF-8"),
        ("x.csv", f"{HEADER}1,2,{T}\r\n1,2,{T}\n1,2,{T}\r\n", "line ends are mixed"),
    ],
    ids=range(8),
)
def test_an_object_that_cannot_be_used_is_named_by_its_url(
    build: BuildSequences, bucket: str, name: str, contents: str | bytes, text: str
) -> None:
    put(f"{bucket}/{name}", contents)
    outcome = build("--ratings", f"{bucket}/{name}")
    fails(outcome, f"{bucket}/{name}", text)
    assert no_copy_is_named(outcome.stderr)


def test_a_url_that_names_nothing_is_an_input_error(build: BuildSequences, bucket: str) -> None:
    put(f"{bucket}/log/a.txt", "x")
    for where in ("nothing.csv", "log/", "log/*.csv", "no/"):
        fails(build("--ratings", f"{bucket}/{where}"), f"{bucket}/{where}: no object found")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://bucket/x.csv?versionId=7", "has parameters"),
        ("https://host/x.csv?X-Amz-Signature=abcdef", "has parameters"),
        ("s3://key:geheim@bucket/x.csv", "holds a password"),
        ("ftp://host/x.csv", "no source for ftp:// is known; expected a file, az://, bigquery://"),
        ("postgres://user:geheim@host/db?table=x", "holds a password"),
        ("postgres://user@host/db?table=x", "no source for postgres:// is known"),
    ],
)
def test_a_url_that_may_hold_a_secret_or_names_no_store_is_refused(build: BuildSequences, url: str, text: str) -> None:
    outcome = build("--ratings", url)
    fails(outcome, text)
    assert outcome.exit_code == 2
    assert "abcdef" not in outcome.stderr
    assert "geheim" not in outcome.stderr


class _Counting(io.BytesIO):
    """A file that counts the bytes that are read."""

    n_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        _Counting.n_read += len(block)
        return block


def test_only_the_wanted_columns_of_parquet_are_copied(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 400_000
    table = pa.table({"userId": range(n), "other": [f"text {i * 7919}" for i in range(n)], "Item.id": range(n, 2 * n)})
    written = io.BytesIO()
    pq.write_table(table, written, row_group_size=n // 2, compression="none", use_dictionary=False)
    contents, copy = written.getvalue(), tmp_path / "copy"
    monkeypatch.setattr(_Counting, "n_read", 0)
    monkeypatch.setattr(MemoryFileSystem, "open", lambda *_, **__: _Counting(contents))
    store = ObjectStore(f"{bucket}/x.parquet")
    store.object(store.path).copy(copy, {"userid", "item.id"}, Event())
    assert copy.stat().st_size == len(contents)
    assert 2 * n * 8 <= _Counting.n_read < len(contents) * 0.6
    columns = ["userId", "Item.id"]
    assert pq.read_table(copy, columns=columns).equals(table.select(columns))


@pytest.mark.slow
def test_damaged_parquet_is_copied_as_it_is(bucket: str, tmp_path: Path) -> None:
    store = ObjectStore(f"{bucket}/x.parquet")
    for number in (*range(0, 400, 7), 174, 3348):
        _, _, contents = mutated_parquet.mutation(number)
        put(f"{bucket}/x.parquet", contents)
        store.object(store.path).copy(tmp_path / "copy", {"userid"}, Event())
        assert (tmp_path / "copy").read_bytes() == contents


def test_a_rule_table_with_other_capitals_is_read_from_a_store(bucket: str) -> None:
    wide = {f"column_{number}": list(range(200_000)) for number in range(4)}
    put(f"{bucket}/x.parquet", parquet(**wide, ITEM_ID=list(range(200_000))))
    table = read_text_table(f"{bucket}/x.parquet", "--allow", {"item_id": "--allow"}, ("segment",))
    assert table.rows["item_id"].to_pylist() == list(map(str, range(200_000)))
    assert table.names == (*wide, "ITEM_ID")


def test_a_bad_row_of_a_rule_table_is_named_by_its_url(bucket: str) -> None:
    put(f"{bucket}/x.csv", "item_id,factor\n1,2\n3,4,5\n")
    with pytest.raises(InputError, match=rf"^{bucket}/x\.csv: line 3: malformed"):
        read_text_table(f"{bucket}/x.csv", "--boost", {"item_id": "", "factor": ""})


class _Failing(io.BytesIO):
    """A file that fails at its second block."""

    def __init__(self, contents: bytes, error: Exception) -> None:
        super().__init__(contents)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 4:
            raise self._error
        return super().read(size)


@pytest.mark.parametrize(
    ("error", "n_failures", "text"),
    [
        (ConnectionResetError("reset by peer"), 1, None),
        (ConnectionResetError("reset by peer"), 2, None),
        (ConnectionResetError("reset by peer"), 9, "cannot be read: reset by peer"),
        (FileNotFoundError("gone"), 1, "does not exist"),
        (PermissionError("Forbidden"), 1, "access is denied"),
        (OSError(errno.EBUSY, "replaced"), 1, "cannot be read"),
    ],
)
def test_a_copy_is_retried_if_the_connection_is_lost(
    bucket: str, monkeypatch: pytest.MonkeyPatch, error: Exception, n_failures: int, text: str | None
) -> None:
    contents = bytes(range(256)) * 40_000
    put(f"{bucket}/x.csv", contents)
    opened, failures = MemoryFileSystem.open, [error] * n_failures

    def fail(self: MemoryFileSystem, *arguments: Any, **options: Any) -> Any:
        return _Failing(contents, failures.pop()) if failures else opened(self, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", fail)
    monkeypatch.setattr(Event, "wait", lambda self, timeout=None: None)
    store = ObjectStore(f"{bucket}/x.csv")
    copy = Path(tempfile.mkdtemp()) / "copy"
    if text is None:
        store.object(store.path).copy(copy, (), Event())
        assert copy.read_bytes() == contents
    else:
        with pytest.raises(StoreError, match=rf"^{bucket}/x\.csv: .*{text}"):
            store.object(store.path).copy(copy, (), Event())
        assert len(failures) == max(0, n_failures - 3)


def test_a_full_disk_is_one_line_that_names_the_folder(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{bucket}/x.csv", b"x")
    copy = spooled_as(f"{bucket}/x.csv", tmp_path).path
    monkeypatch.setattr(
        Path, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    store = ObjectStore(f"{bucket}/x.csv")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}: cannot hold the copy of {bucket}/x.csv: No space left"):
        store.object(store.path).copy(copy, (), Event())
