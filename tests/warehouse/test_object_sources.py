"""Logs and tables in S3: read like files, with errors that name the URL and hold no secret."""

import gzip
import http.server
import io
import os
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import CatalogueConfig
from batchrec.errors import StoreError
from batchrec.scoring.user_list import read_user_list
from batchrec.sources.catalogue import read_catalogue
from batchrec.sources.object_store import ObjectStore
from batchrec.sources.text_tables import read_text_table
from tests.conftest import BuildSequences
from tests.support.log_files import HEADER, T, write

DAY_ONE = 1_714_521_600  # 2024-05-01T00:00:00Z


def put(url: str, contents: str | bytes) -> None:
    boto3 = pytest.importorskip("boto3")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    body = contents.encode() if isinstance(contents, str) else contents
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def parquet(**columns: list[Any]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


@contextmanager
def checked_credentials() -> Iterator[None]:
    """Let the S3 server check the credentials of each request, which it does not by itself."""
    reset = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"

    def allow(n_requests: int) -> None:
        body, headers = str(n_requests).encode(), {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(reset, body, headers, method="POST"))  # noqa: S310

    allow(0)
    try:
        yield
    finally:
        allow(10**9)


def test_a_folder_with_partitions_and_every_format_is_read(build: BuildSequences, s3: str) -> None:
    put(f"{s3}/log/", "")
    put(f"{s3}/log/_SUCCESS", "")
    put(f"{s3}/log/dt=2024-05-01/a.csv", "userId,movieId\n1,2\n")
    put(f"{s3}/log/dt=2024-05-02/b b+ü.csv.gz", gzip.compress(b"userId,movieId\n1,3\n"))
    put(f"{s3}/log/dt=2024-05-03/c.csv.zst", pa.compress(b"userId,movieId\n1,4\n", "zstd", asbytes=True))
    put(f"{s3}/log/dt=2024-05-04/d.jsonl.gz", gzip.compress(b'{"userId": 1, "movieId": 5}\n'))
    put(f"{s3}/log/dt=2024-05-05/e.parquet", parquet(userId=[1], movieId=[6], more=[[1]]))
    for where in ("log/", "log", "log/*/*"):
        outcome = build("--ratings", f"{s3}/{where}", "--timestamp-column", "dt")
        assert outcome.histories == {1: [2, 3, 4, 5, 6]}, outcome.stderr
        assert outcome.times == [DAY_ONE + number * 86_400 for number in range(5)]
        assert outcome.stderr == ""


def test_one_object_is_read_and_its_bad_rows_are_named_by_url(build: BuildSequences, s3: str) -> None:
    put(f"{s3}/a.csv.gz", gzip.compress(f"{HEADER}1,2,{T}\n1,x,soon\n".encode()))
    outcome = build("--ratings", f"{s3}/a.csv.gz", "--max-bad-rows", "1")
    assert outcome.histories == {1: [2]}
    rejects = Path("sequences.rejects.csv").read_text(encoding="utf-8").splitlines()
    assert rejects[1:] == [f"{s3}/a.csv.gz,3,unreadable time,soon"]


def test_partitions_before_since_are_not_downloaded(
    build: BuildSequences, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs = pytest.importorskip("s3fs")
    opened, names = s3fs.S3FileSystem.open, []

    def record(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        names.append(name.rpartition("/log/")[2])
        return opened(self, name, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "open", record)
    for number in range(6):
        day = datetime(2024, 4, 28, tzinfo=UTC) + timedelta(days=number)
        put(f"{s3}/log/dt={day:%Y-%m-%d}/a.csv", f"userId,movieId\n1,{number}\n")
    outcome = build("--ratings", f"{s3}/log/", "--timestamp-column", "dt", "--since", "2024-05-01")
    assert outcome.histories == {1: [3, 4, 5]}
    assert sorted(names) == [f"dt=2024-05-0{day}/a.csv" for day in (1, 2, 3)]


def test_rule_tables_users_and_a_catalogue_are_read(s3: str) -> None:
    put(f"{s3}/rules/block.csv", "ITEM_ID\n7\n8\n")
    put(f"{s3}/users.parquet", parquet(user_id=[3, 4], note=["a", "b"]))
    put(f"{s3}/movies.jsonl", '{"movieId": 7, "title": "Seven"}\n')
    table = read_text_table(f"{s3}/rules/", "--block", {"item_id": "--block"})
    assert table.rows["item_id"].to_pylist() == ["7", "8"]
    assert read_user_list(f"{s3}/users.parquet", pa.int64()).to_pylist() == [3, 4]
    catalogue = read_catalogue(CatalogueConfig(items=f"{s3}/movies.jsonl"), pa.int64())
    assert catalogue is not None
    assert catalogue.values_of(pa.array([7])).to_pylist() == ["Seven"]


def test_a_table_of_a_lake_is_refused(build: BuildSequences, s3: str) -> None:
    put(f"{s3}/t/_delta_log/00.json", "{}")
    put(f"{s3}/t/dt=1/a.parquet", parquet(userId=[1], movieId=[2], timestamp=[T]))
    for where in ("t/", "t/dt=1/a.parquet", "t/*/*.parquet", ""):
        outcome = build("--ratings", f"{s3}/{where}")
        assert outcome.exit_code == 3
        assert f"{s3}/t: is a table of Delta Lake" in outcome.stderr
        assert f"delta+{s3}/t" in outcome.stderr


def fails_with_8(build: BuildSequences, url: str, text: str) -> None:
    outcome = build("--ratings", url)
    assert outcome.exit_code == 8, outcome.stderr
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"batchrec: error: {url}")
    assert text in line
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "no-secret") not in line


def test_a_missing_bucket_is_one_line(build: BuildSequences, s3: str) -> None:
    for where in ("x.csv", "log/", "log/*.csv"):
        fails_with_8(build, f"{s3}-missing/{where}", "bucket, does not exist")
    outcome = build("--ratings", f"{s3}/log/")
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (3, 1)


def test_wrong_and_missing_credentials_are_one_line(
    build: BuildSequences, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{s3}/log/a.csv", f"{HEADER}1,2,{T}\n")
    with checked_credentials():
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
        for where in ("log/", "log/a.csv", "log/*.csv"):
            fails_with_8(build, f"{s3}/{where}", "access is denied")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fails_with_8(build, f"{s3}/log/", "Unable to locate credentials")


def test_a_server_that_does_not_answer_is_one_line(
    build: BuildSequences, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fails_with_8(build, f"{s3}/log/", "Could not connect")


def test_an_object_that_vanishes_is_an_error_of_the_store(s3: str, tmp_path: Path) -> None:
    put(f"{s3}/a.csv", "x")
    store = ObjectStore(f"{s3}/a.csv")
    assert store.is_object()
    store.files.rm(store.path)
    with pytest.raises(StoreError, match=r"a\.csv: the object, or its bucket, does not exist"):
        store.object(store.path).copy(tmp_path / "copy", (), threading.Event())


def test_a_full_disk_while_copying_is_one_line(build: BuildSequences, s3: str, tmp_path: Path) -> None:
    put(f"{s3}/a.csv", HEADER + f"1,2,{T}\n" * 500_000)
    # A limit of the size of a file stops a write as a full disk does.
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20)); "
        "from batchrec.cli import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "build-sequences", "--ratings", f"{s3}/a.csv"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert f"cannot hold the copy of {s3}/a.csv" in line
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class _Handler(http.server.SimpleHTTPRequestHandler):
    """A server without ranges, as Python's is, that drops the first connections in the middle of an object."""

    n_to_drop = 0

    def do_HEAD(self) -> None:
        if self.path.startswith("/unknown"):
            self.send_response(200)
            self.end_headers()
        else:
            super().do_HEAD()

    def do_GET(self) -> None:
        folder = self.path.split("/")[1]
        if folder in {"unknown", "cut", "gzip", "part"}:
            # Without a length an answer ends when the server closes the connection.
            contents = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(206 if folder == "part" else 200)
            if folder == "gzip":
                contents = gzip.compress(contents)
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(contents if folder == "unknown" else contents[:-15])
            return
        if _Handler.n_to_drop and "Range" not in self.headers:
            _Handler.n_to_drop -= 1
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"userId,")
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of a server of the folder `served`, without a slash at its end."""
    served, pem = tmp_path / "served", tmp_path / "server.pem"
    served.mkdir()
    pem.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(served)))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    try:
        yield f"https://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def self_signed() -> bytes:
    """Return a key and a certificate for localhost."""
    x509 = pytest.importorskip("cryptography.x509")
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return bytes(private + certificate.public_bytes(serialization.Encoding.PEM))


def built(folder: Path, *urls: str) -> subprocess.CompletedProcess[str]:
    """Build sequences in a folder by another process, because aiohttp reads the certificates only once."""
    command = [sys.executable, "-m", "batchrec", "build-sequences"]
    for url in urls:
        command += ["--ratings", url]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("n_to_drop", [0, 2, 3])
def test_objects_are_read_by_https_and_retried(https: str, tmp_path: Path, n_to_drop: int) -> None:
    write(str(tmp_path / "served" / "a.csv"), HEADER + f"1,2,{T}\n" * 400_000)
    write(str(tmp_path / "served" / "b.parquet"), parquet(userId=[1], movieId=[3], timestamp=[T + 1]))
    _Handler.n_to_drop = n_to_drop
    names = ["a.csv", "b.parquet"] if n_to_drop == 0 else ["a.csv"]
    ended = built(tmp_path, *(f"{https}/{name}" for name in names))
    if n_to_drop < 3:
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("trying again") == n_to_drop
        expected = [[2, 3]] if n_to_drop == 0 else [[2]]
        assert pq.read_table(tmp_path / "sequences.parquet")["item_ids"].to_pylist() == expected
    else:
        assert ended.returncode == 8, ended.stderr
        assert f"{https}/a.csv: cannot be read" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("folder", "exit_code", "said"),
    [
        ("cut", 8, "cannot be read: the object ended early"),
        ("gzip", 3, "ended before the end-of-stream marker"),
        ("part", 8, "the server answers 206; expected 200"),
        ("unknown", 0, "WARNING"),
    ],
)
def test_a_part_of_a_page_is_not_taken_for_all_of_it(
    https: str, tmp_path: Path, folder: str, exit_code: int, said: str
) -> None:
    (tmp_path / "served" / folder).mkdir()
    url = f"{https}/{folder}/a.csv"
    # Without its last line the file would be a log too.
    write(str(tmp_path / "served" / folder / "a.csv"), HEADER + f"1,2,{T}\n1,3,{T + 1}\n")
    ended = built(tmp_path, url)
    assert ended.returncode == exit_code, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert said in last
    assert f"{url}: " in last
    # Another try of what the server answers on purpose would take seconds for nothing.
    assert ("trying again" in ended.stderr) == (folder == "cut")


def test_a_missing_page_is_an_input_error(https: str, tmp_path: Path) -> None:
    ended = built(tmp_path, f"{https}/none.csv")
    assert ended.returncode == 3, ended.stderr
    assert f"{https}/none.csv: no object found" in ended.stderr


def test_a_web_server_that_fails_is_an_error_of_the_store(https: str, tmp_path: Path) -> None:
    address = https.rpartition(":")[0] + ":9"
    ended = built(tmp_path, f"{address}/a.csv")
    assert ended.returncode == 8, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert f"{address}/a.csv: cannot be read: Cannot connect" in line
