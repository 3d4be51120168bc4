"""A shop's folder: its log, its options, the state that its readers see, and files that must not be left in it."""

import csv
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path

from batchrec.nightly.archive import Archive
from batchrec.nightly.registry import ModelRegistry
from batchrec.targets import open_target
from tests.faults.children import run
from tests.support.models import names_in
from tests.support.shared import made_once

FIRST = date(2024, 3, 1)
N_ITEMS = 40
OPTIONS = """\
[build-sequences]
threads = 1
[train]
every = "7d"
n-layers = 1
hidden-size = 16
n-heads = 2
max-len = 8
max-epochs = 3
min-epoch-steps = 20
warmup-steps = 5
learning-rate = 0.02
dropout = 0.0
validation-users = 60
device = "cpu"
[score]
top-k = 3
device = "cpu"
workers = 1
chunk-size = 40
items = "movies.csv"
[run]
metrics-file = "metrics.prom"
keep = 2
keep-models = 1
gate-max-top-items = 1.0
gate-min-overlap = 0.0
"""
Histories = dict[int, list[int]]


@cache
def _first_histories() -> Mapping[int, list[int]]:
    """Return histories in which each item is followed by the next one, so that little training is enough."""
    chance = random.Random(3)  # noqa: S311 - a sample, no secret
    starts = {user: (chance.randrange(N_ITEMS), chance.randint(5, 12)) for user in range(240)}
    return {user: [1000 + (start + n) % N_ITEMS for n in range(length)] for user, (start, length) in starts.items()}


def histories(n_days: int = 0) -> Histories:
    """Return the log after some days; on each of them a few users have one more event, and one user is new."""
    found = {user: list(items) for user, items in _first_histories().items()}
    for day in range(1, n_days + 1):
        for user in range(day, 240, 29):
            found[user].append(1000 + (found[user][-1] - 999) % N_ITEMS)
        found[1000 + day] = [1000 + (7 * day + place) % N_ITEMS for place in range(6)]
    return found


@dataclass(frozen=True)
class State:
    """All that a reader may look at: the digests of the nights' tables and of the current table, and the models."""

    tables: Mapping[date, str]
    out: str | None
    models: frozenset[str]
    in_use: str | None


@dataclass(frozen=True)
class Shop:
    """A folder in which nights are run by `python -m batchrec run`."""

    folder: Path

    @property
    def archive(self) -> Archive:
        return Archive(self.folder / "nights", open_target(str(self.folder / "recs.parquet")))

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(self.folder / "models")

    def write_log(self, log: Mapping[int, list[int]], shuffled: random.Random | None = None) -> None:
        rows = [(user, item, 1_700_000_000 + n) for user, items in log.items() for n, item in enumerate(items)]
        if shuffled is not None:
            shuffled.shuffle(rows)
        with (self.folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("userId", "movieId", "timestamp"), *rows])

    def run(self, night: int = 0, *options: object) -> None:
        """Run the night that is `night` days after the first; it must succeed."""
        code, child = run(self.folder, night_of(night, *options))
        assert code == 0, child.said

    def copy(self, to: Path) -> "Shop":
        shutil.copytree(self.folder, to, symlinks=True)
        return Shop(to)

    def state(self) -> State:
        in_use = self.registry.current
        out = self.folder / "recs.parquet"
        tables = {night: self.archive.table(night) for night in self.archive.dates()}
        return State(
            # A test may have deleted a table.
            tables={night: digest(table) for night, table in tables.items() if table.exists()},
            out=digest(out) if out.exists() else None,
            models=frozenset(names_in(self.registry.folder)) if self.registry.folder.exists() else frozenset(),
            in_use=in_use.name if in_use else None,
        )

    def leftovers(self) -> list[str]:
        """Return the files that a successful night must not leave."""
        names = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*")]
        hidden = [name for name in names if any(part.startswith(".") for part in Path(name).parts)]
        ends = (".tmp", ".new", ".part", ".probe", ".old")
        failed = [name for name in names if name.startswith("nights/failed/")]
        return sorted({*hidden, *failed, *(name for name in names if name.endswith(ends))} - {"nights/.lock"})


def night_of(night: int, *options: object) -> list[object]:
    """Return the command of the night that is `night` days after the first."""
    return ["run", "--run-date", FIRST + timedelta(days=night), "--log-format", "json", *options]


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def empty_shop(folder: Path, n_days: int = 0) -> Shop:
    """Make a shop before its first night."""
    folder.mkdir(parents=True)
    shop = Shop(folder)
    shop.write_log(histories(n_days))
    (folder / "batchrec.toml").write_text(OPTIONS, encoding="utf-8")
    titles = "".join(f"{1000 + item},Film {item}\n" for item in range(N_ITEMS))
    (folder / "movies.csv").write_text(f"movieId,title\n{titles}", encoding="utf-8")
    return shop


@cache
def shop_after_first_night() -> Shop:
    """Return a shop that has published one night; tests work on copies of it."""
    return Shop(made_once("after-first-night", lambda folder: empty_shop(folder).run()))
