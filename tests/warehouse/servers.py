"""Servers on this machine that the warehouse tests start and stop: S3 by moto, and Postgres."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 60


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server accepts connections; fail if it ends first or takes a minute."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server has ended with {process.returncode}"
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run an S3 server; yield the environment by which every client finds it."""
    port = free_port()
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_listening(port, server)
        yield {
            "AWS_ACCESS_KEY_ID": "batchrec-tests",
            "AWS_SECRET_ACCESS_KEY": "no-secret-of-anybody",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            # Plain HTTP, for deltalake.
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.kill()
        server.wait()


@dataclass(frozen=True)
class PostgresServer:
    """A Postgres server. environment: by which libpq finds it; it holds the password."""

    environment: dict[str, str]
    port: int

    @property
    def url(self) -> str:
        """The URL of its database, without the password."""
        return f"postgresql://{self.environment['PGUSER']}@127.0.0.1:{self.port}/{self.environment['PGDATABASE']}"


def postgres_programs() -> Path | None:
    """Return the folder of Postgres' programs, which Debian keeps off the path; None if it is not installed."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def postgres_server(folder: Path) -> Iterator[PostgresServer]:
    """Run a Postgres server in an empty folder; yield how to reach it."""
    programs = postgres_programs()
    assert programs is not None
    port, password = free_port(), secrets.token_hex(8)
    # Postgres refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    if user is not None:
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for parent in (folder, *folder.parents):
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    password_file = folder / "password"
    password_file.write_text(password, encoding="utf-8")
    cluster = folder / "cluster"
    subprocess.run(
        [programs / "initdb", "-D", cluster, "-U", "tester", "-A", "scram-sha-256", f"--pwfile={password_file}"],
        check=True,
        user=user,
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    options = f"-p {port} -k {folder} -h 127.0.0.1 -F"
    control = [str(programs / "pg_ctl"), "-D", str(cluster), "-w", "-t", str(_SECONDS), "-s"]
    # It returns when the server answers.
    start = [*control, "-o", options, "-l", str(folder / "log"), "start"]
    subprocess.run(start, check=True, user=user, cwd=folder)
    try:
        yield PostgresServer({"PGUSER": "tester", "PGPASSWORD": password, "PGDATABASE": "postgres"}, port)
    finally:
        # Without waiting for open connections.
        subprocess.run([*control, "-m", "fast", "stop"], check=True, user=user, cwd=folder)
