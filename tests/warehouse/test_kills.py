"""A process that publishes is killed at any time while a reader polls: old or new rows, never less."""

import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from batchrec.errors import ConfigError, StoreError
from batchrec.targets import PublishedTable, open_target
from tests.support.recs import NIGHT, moderate_recs
from tests.warehouse import readers
from tests.warehouse.publishing import Limits, start

N_KILLS = 20
N_USERS = {"old": 10_000, "new": 15_000, "other": 5_000}
EARLIER = NIGHT - timedelta(days=1)


@dataclass(frozen=True)
class Polled:
    """A target to kill writers of. out: of the folder of a test; a name in braces is a fixture's value.

    read: returns the number of rows by run date and model id, as a program sees them that does not know batchrec; under
    "" if the target holds one table. It reads again by itself if the store asks for that.
    """

    out: str
    read: Callable[[str], readers.Counts]


# A target is added by a line here, and a function in readers.py.
TARGETS = {
    "folder": Polled("recs/", readers.read_folder),
    "s3 object": Polled("{s3}/recs.parquet", readers.read_object),
    "s3 folder": Polled("{s3}/recs/", readers.read_store_folder),
    "duckdb": Polled("duckdb://recs.db?table=recs", readers.read_duckdb),
    "delta": Polled("delta://recs", readers.read_delta),
    "delta on s3": Polled("delta+{s3}/recs", readers.read_delta),
    "iceberg": Polled("{iceberg}/shop.recs", readers.read_iceberg),
    "postgres": Polled("{postgres}?table=public.recs", readers.read_postgres),
}


@pytest.fixture(params=TARGETS)
def polled(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Polled:
    monkeypatch.chdir(tmp_path)
    target = TARGETS[request.param]
    fixtures = re.findall(r"{(\w+)}", target.out)
    out = target.out.format(**{name: request.getfixturevalue(name) for name in fixtures})
    return Polled(out, target.read)


@dataclass
class Poll:
    """The polls of a reader, and the wrong ones among them."""

    wrong: list[str] = field(default_factory=list)
    n_polls: int = 0


@contextmanager
def polling(polled: Polled, *allowed: readers.Counts) -> Iterator[Poll]:
    """Poll until the block ends, and fail if the reader has seen anything but what is allowed."""
    poll, is_over = Poll(), threading.Event()

    def read() -> None:
        while not is_over.wait(0.02):
            try:
                seen = polled.read(polled.out)
                if seen not in allowed:
                    poll.wrong.append(str(seen))
            except Exception as error:
                poll.wrong.append(repr(error))
            poll.n_polls += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield poll
    finally:
        is_over.set()
        thread.join()
    assert not poll.wrong, poll.wrong[:3]
    assert poll.n_polls


def publish(out: str, table: PublishedTable) -> None:
    with open_target(out).replacing(table):
        pass


def counts(target: Polled, *tables: PublishedTable) -> readers.Counts:
    """Return what a reader sees if these tables are published."""
    is_dated = open_target(target.out).is_dated
    return {(str(table.run_date) if is_dated else "", table.model_id): 10 * N_USERS[table.model_id] for table in tables}


def test_a_reader_sees_old_or_new_rows_whenever_the_writer_is_killed(polled: Polled) -> None:
    is_dated = open_target(polled.out).is_dated
    old, new = (moderate_recs(Path(f"{name}.parquet"), N_USERS[name], name) for name in ("old", "new"))
    other = [moderate_recs(Path("other.parquet"), N_USERS["other"], "other", EARLIER)] if is_dated else []
    for table in (*other, old):
        publish(polled.out, table)
    before, after = counts(polled, *other, old), counts(polled, *other, new)
    assert polled.read(polled.out) == before
    writer, started = start(polled.out, new), time.monotonic()
    assert writer.wait() == 0
    duration = time.monotonic() - started
    publish(polled.out, old)
    chance = random.Random(20)  # noqa: S311 - a sample, no secret
    n_kills = 0
    with polling(polled, before, after):
        # More tries than kills: some writers end before their time.
        for number in range(3 * N_KILLS):
            table = (new, old)[number % 2]
            exit_code = start(polled.out, table, Limits(seconds=chance.uniform(1e-6, duration))).wait()
            assert exit_code in {0, -signal.SIGALRM}
            n_kills += exit_code != 0
            if n_kills == N_KILLS:
                break
        assert n_kills >= N_KILLS // 2
    # The next run replaces the date and removes what the killed ones have left.
    publish(polled.out, new)
    assert polled.read(polled.out) == after
    assert open_target(polled.out).sha256() == new.sha256
    assert readers.leftovers(polled.out) == []


@pytest.mark.parametrize("name", ["folder", "duckdb"])
def test_a_full_disk_leaves_the_old_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    polled = TARGETS[name]
    old, new = (moderate_recs(Path(f"{table}.parquet"), N_USERS[table], table) for table in ("old", "new"))
    publish(polled.out, old)
    before = counts(polled, old)
    full = max(file.stat().st_size for file in Path().rglob("*") if file.suffix in {".db", ".parquet"})
    with polling(polled, before):
        for file_bytes in (1 << 12, full // 3, full // 2):
            exit_code, message = start(polled.out, new, Limits(file_bytes)).error()
            assert exit_code in {ConfigError.exit_code, StoreError.exit_code}
            assert message.startswith(f"{open_target(polled.out)}: cannot be ")
            assert "\n" not in message
    assert open_target(polled.out).sha256() == old.sha256
    publish(polled.out, new)
    assert polled.read(polled.out) == counts(polled, new)
    assert readers.leftovers(polled.out) == []
