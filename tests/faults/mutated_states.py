"""Damage the folders of nights and models, and record the result of the next command.

`python -m tests.faults.mutated_states WORK FIRST LAST` writes two JSON lines per mutation to WORK/outcomes, as
mutated_logs does. A command may publish only a complete table: one that a night has published before, or a new one.
"""

import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrec.errors import BatchrecError
from batchrec.nightly.rollback import roll_back
from tests.faults.byte_mutations import HOSTILE, MUTATIONS, mutated
from tests.faults.mutated_models import faults_of
from tests.support.models import training_histories
from tests.support.nights import FIRST, Company, company

N_NIGHTS = 3
# A run takes a second, the other commands hardly any time.
_COMMANDS = ["run", "roll back", "roll back", "roll back to", "plan", "models", "models", "older model", "older model"]
_NAMES = ["run_date=9999-12-31", "run_date=2024-02-30", "run_date=", ".failed", "run_date=2024-03-05", "x", ".lock"]


def _bytes(path: Path, chance: random.Random) -> None:
    _, contents = mutated(path.read_bytes(), chance, MUTATIONS)
    path.write_bytes(contents)


def _word(path: Path, chance: random.Random) -> None:
    contents = path.read_bytes()
    start = chance.randrange(len(contents) + 1)
    path.write_bytes(contents[:start] + chance.choice(HOSTILE) + contents[start + chance.choice([0, 1, 8]) :])


def _value(path: Path, chance: random.Random) -> None:
    """Change a value of a report, but not its seal."""
    try:
        report = json.loads(path.read_bytes())
        report[chance.choice(sorted(report))] = chance.choice([None, 0, -1, "x", [], {}, "2024-03-02", 1e308])
    except (ValueError, TypeError, IndexError):
        # The file is not a report, or is damaged already.
        _bytes(path, chance)
    else:
        path.write_text(json.dumps(report), encoding="utf-8")


def _remove(path: Path, chance: random.Random) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _folder(path: Path, chance: random.Random) -> None:
    """Replace a file by a folder, or a folder by a file."""
    was_folder = path.is_dir()
    _remove(path, chance)
    if was_folder:
        path.write_bytes(chance.choice([b"", b"x"]))
    else:
        path.mkdir()


def _link(path: Path, chance: random.Random) -> None:
    """Replace a file or folder by a link: to nothing, to itself, or to a neighbour."""
    target = chance.choice(["nowhere", path.name, "..", *(other.name for other in sorted(path.parent.iterdir()))])
    _remove(path, chance)
    path.symlink_to(target)


def _add(path: Path, chance: random.Random) -> None:
    new = path.parent / chance.choice(_NAMES)
    if not new.exists():
        if chance.random() < 0.5:
            new.write_bytes(b"x")
        # Links are not followed: the copy might be inside the copied folder.
        elif path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new, symlinks=True)
        else:
            new.mkdir()


def _exchange(path: Path, chance: random.Random) -> None:
    """Exchange the contents with those of another file of the same name."""
    root = next(parent for parent in path.parents if (parent / "ratings.csv").exists())
    others = [other for other in sorted(root.rglob(path.name)) if other.is_file() and path.is_file()]
    if others:
        other = chance.choice(others)
        contents = path.read_bytes(), other.read_bytes()
        other.write_bytes(contents[0])
        path.write_bytes(contents[1])


_FILES: list[Callable[[Path, random.Random], None]] = [_bytes, _bytes, _bytes, _word, _value, _exchange]
_ALL: list[Callable[[Path, random.Random], None]] = [_remove, _folder, _link, _add]


def damage(folder: Path, chance: random.Random) -> str:
    """Damage a state one to three times; return a description."""
    done = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        paths = [path for path in sorted(folder.rglob("*")) if path.name not in ("ratings.csv", "metrics.prom")]
        if not paths:
            break
        path = chance.choice(paths)
        is_file = path.is_file() and not path.is_symlink()
        mutation = chance.choice(_FILES + _ALL if is_file else _ALL)
        mutation(path, chance)
        done.append(f"{mutation.__name__.strip('_')} {path.relative_to(folder)}")
    return ", ".join(done)


def _act(made: Company, command: str, chance: random.Random) -> int | None:
    """Run a command; return the night whose table must then be the current one, None if it changes no table."""
    if command == "run":
        night = chance.choice([N_NIGHTS - 1, N_NIGHTS, N_NIGHTS])
        made.run(night)
        return night
    if command.startswith("roll back"):
        to = FIRST + timedelta(days=chance.randrange(N_NIGHTS)) if command == "roll back to" else None
        return (roll_back(made.archive, to) - FIRST).days
    if command == "plan":
        made.archive.reports(made.archive.dates())
    elif command == "models":
        for version in made.registry.versions():
            _ = version.manifest
        _ = made.registry.current
    else:
        made.registry.use(made.registry.before_current())
    return None


def outcome(made: Company, command: str, chance: random.Random, good: dict[int, bytes]) -> str:
    """Run a command on a damaged state; return "refused", "done", or a WRONG text.

    good: the tables of the nights by number.
    """
    out = made.folder / "recs.parquet"
    before = out.read_bytes() if out.is_file() else None
    what = "done"
    night: int | None = None
    try:
        night = _act(made, command, chance)
    except BatchrecError as error:
        what = "refused" if len(str(error)) < 3000 else f"WRONG: more than a line: {error}"
    except Exception as error:
        return f"WRONG: {error!r}"[:1500]
    after = out.read_bytes() if out.is_file() else None
    if after != before and after not in good.values():
        faults = _faults_of_new(made, out, command)
        if faults:
            return f"WRONG: {what}, and the current table has {faults}"
    # A link in place of a night may lead to another night, whose table is complete.
    is_linked = any(path.is_symlink() for path in (made.folder / "nights").glob("run_date=*"))
    is_other = night in good and after != good[night] and not is_linked
    if what == "done" and command.startswith("roll back") and is_other:
        return "WRONG: a rollback to a table that the night has not published"
    if what == "done" and command == "run" and night == N_NIGHTS and after != _table(made, night):
        return "WRONG: a run has succeeded, but its table is not the current one"
    return what


def _table(made: Company, night: int) -> bytes:
    return made.archive.table(FIRST + timedelta(days=night)).read_bytes()


def _faults_of_new(made: Company, out: Path, command: str) -> list[str]:
    """Return the faults of a table that no earlier night has published."""
    if command != "run":
        return ["rows that no night has published"]
    recs = pq.read_table(out)
    log: dict[str, set[Any]] = {"users": set(), "items": set()}
    for line in (made.folder / "ratings.csv").read_text(encoding="utf-8").splitlines()[1:]:
        user, item, _ = line.split(",")
        log["users"].add(user)
        log["items"].add(item)
    faults = list(faults_of(recs, {type(recs["item_id"][0].as_py())(item) for item in log["items"]}))
    users = {str(user) for user in recs["user_id"].to_pylist()}
    return faults + ([] if users == log["users"] else ["other users"])


def main() -> None:
    work = Path(sys.argv[1])
    logging.disable(logging.CRITICAL)
    patch = pytest.MonkeyPatch()
    home = work / "home"
    home.mkdir()
    os.environ["TMPDIR"] = str(work)
    with company(home, patch) as made, (work / "outcomes").open("w", encoding="utf-8") as outcomes:
        histories = training_histories()
        for night in range(N_NIGHTS):
            # Each night has one user more, so that no two tables are equal.
            made.write_log(histories | {10_000 + user: [*histories.values()][user] for user in range(night + 1)})
            made.run(night)
        assert len({_table(made, night) for night in range(N_NIGHTS)}) == N_NIGHTS
        good = {night: _table(made, night) for night in range(N_NIGHTS)}
        for number in range(int(sys.argv[2]), int(sys.argv[3])):
            chance = random.Random(number)  # noqa: S311 - a sample, no secret
            made.folder = work / "damaged"
            shutil.rmtree(made.folder, ignore_errors=True)
            shutil.copytree(home, made.folder, symlinks=True)
            made.trainings.clear()
            command = chance.choice(_COMMANDS)
            done = f"{damage(made.folder, chance)}; {command}"
            print(json.dumps({"number": number, "done": done}), file=outcomes, flush=True)
            found = outcome(made, command, chance, good)
            print(json.dumps({"number": number, "outcome": found}), file=outcomes, flush=True)
    patch.undo()


if __name__ == "__main__":
    main()
