"""Names and values that look like SQL or shell commands, pickles, changed bytes, secrets, and modes of files."""

import ast
import csv
import json
import os
import pickle
import random
import shutil
import signal
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import batchrec
from tests.faults import counts
from tests.faults.bad_inputs import flipped, option
from tests.faults.children import Limits, run, start
from tests.faults.scenes import scene
from tests.faults.shop import N_ITEMS, Shop, empty_shop, night_of, shop_after_first_night
from tests.support.models import run_cli
from tests.support.strangers import reseal

pytestmark = pytest.mark.slow

CHANCE = random.Random(19)  # noqa: S311 - a sample, no secret
HOSTILE = [
    "'; drop table loaded_events; --",
    '"; copy (select 1) to "pwned"; --',
    "x') union select 1, 2, 3; --",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "| touch pwned",
    "two\nlines",
    "[z]*?.csv",
    "$1 {user} %s :name @x",
    "getenv('HOME')",
    "-x --y=z",
    "\u202etxt.\u200b",
]
IDS = [ascii(text) for text in HOSTILE]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_csv(file: Path, *rows: tuple[Any, ...]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)


def histories_in(file: Path) -> dict[int, list[int]]:
    return {row["user_id"]: row["item_ids"] for row in pq.read_table(file).to_pylist()}


@pytest.mark.parametrize("name", HOSTILE, ids=IDS)
def test_hostile_column_names_are_only_names(name: str, folder: Path) -> None:
    write_csv(folder / "ratings.csv", (f"u{name}", f"i{name}", f"t{name}"), (1, 10, 1577836805), (1, 11, 1577836806))
    columns = [f"--{what}-column={what[0]}{name}" for what in ("user", "item", "timestamp")]
    assert run_cli("build-sequences", *columns) == 0
    assert histories_in(folder / "sequences.parquet") == {1: [10, 11]}
    assert not (folder / "pwned").exists()
    counts.add("hostile names and values")


@pytest.mark.parametrize("name", HOSTILE, ids=IDS)
def test_hostile_file_names_are_only_names(name: str, folder: Path) -> None:
    ratings, out = folder / f"r{name.replace('/', '')}.csv", f"out{name.replace('/', '')}"
    write_csv(ratings, ("userId", "movieId", "timestamp"), (1, 10, 1577836805), (1, 11, 1577836806))
    # A glob of that name would match this file too.
    write_csv(folder / "rzz.csv", ("userId", "movieId", "timestamp"), (2, 20, 1577836805))
    assert run_cli("build-sequences", "--ratings", ratings.name, "--out", out) == 0
    assert histories_in(folder / out) == {1: [10, 11]}
    assert not (folder / "pwned").exists()
    counts.add("hostile names and values")


def test_hostile_titles_are_only_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = shop_after_first_night().copy(tmp_path / "shop")
    monkeypatch.chdir(shop.folder)
    titles = [HOSTILE[item % len(HOSTILE)] for item in range(N_ITEMS)]
    write_csv(Path("movies.csv"), ("movieId", "title"), *((1000 + n, title) for n, title in enumerate(titles)))
    shop.run(1)
    rows = pq.read_table("recs.parquet").to_pylist()
    assert {(row["item_id"], row["title"]) for row in rows} <= {(1000 + n, title) for n, title in enumerate(titles)}
    capsys.readouterr()
    assert run_cli("recommend", "--model", "models/current", "--items", "movies.csv", "1001", "--json") == 0
    found = json.loads(capsys.readouterr().out)["recommendations"]
    assert {row["title"] for row in found} <= set(titles)
    assert not (shop.folder / "pwned").exists()
    counts.add("hostile names and values", len(HOSTILE))


def test_a_night_runs_in_folders_of_any_name(tmp_path: Path) -> None:
    name = "'; drop table x; -- $(touch pwned) `touch pwned` [r]*? \n\"end"
    shop = empty_shop(tmp_path / name)
    (shop.folder / "ratings.csv").rename(shop.folder / f"ratings{name}.csv")
    text = (shop.folder / "batchrec.toml").read_text(encoding="utf-8")
    values = {key: json.dumps(f"{key}{name}") for key in ("nights", "models", "out")}
    text = text.replace("[run]", f"[run]\nnights = {values['nights']}\nmodels = {values['models']}")
    text = text.replace("[score]", f"[score]\nout = {values['out']}")
    text = text.replace("[build-sequences]", f"[build-sequences]\nratings = {json.dumps(f'ratings{name}.csv')}")
    (shop.folder / "batchrec.toml").write_text(text, encoding="utf-8")
    shop.run(0, "--metrics-file", f"metrics{name}.prom")
    assert (shop.folder / f"out{name}").read_bytes() == (shop_after_first_night().folder / "recs.parquet").read_bytes()
    assert not list(tmp_path.rglob("pwned"))
    counts.add("hostile names and values")


VALUES = [
    ("build-sequences", "memory-limit", 2),
    ("build-sequences", "max-bad-rows", 2),
    ("build-sequences", "user-column", 3),
    ("build-sequences", "ratings", 3),
    ("build-sequences", "query", 2),
    ("train", "every", 2),
    ("train", "device", 2),
    ("score", "items", 3),
    ("score", "title-column", 3),
    ("score", "users", 3),
    ("run", "lock", 2),
]


@pytest.mark.parametrize("option_and_code", VALUES, ids=[key for _, key, _ in VALUES])
def test_hostile_values_of_options_are_errors(
    option_and_code: tuple[str, str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, key, exit_code = option_and_code
    shop = shop_after_first_night().copy(tmp_path / "shop")
    monkeypatch.chdir(shop.folder)
    for value in HOSTILE if counts.IS_LONG else CHANCE.sample(HOSTILE, 2):
        shutil.copy(shop_after_first_night().folder / "batchrec.toml", "batchrec.toml")
        option(table, f"{key} = {json.dumps(value)}")(shop.folder)
        capsys.readouterr()
        assert run_cli("run", "--run-date", "2024-03-02") == exit_code
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("batchrec: error:")]
        assert len(errors) == 1
        assert not list(tmp_path.rglob("pwned"))
        counts.add("hostile names and values")


# They exchange counts with workers that they have started, over Spark's own channel, which pickles too.
AMONG_OWN_PROCESSES = {"engines/spark_sequences.py", "engines/user_ranges.py", "engines/shipping.py"}


def test_no_module_unpickles() -> None:
    root = Path(batchrec.__file__).parent
    files = [file for file in root.rglob("*.py") if file.relative_to(root).as_posix() not in AMONG_OWN_PROCESSES]
    assert len(files) > 50
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            else:
                continue
            unsafe = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "torch.load", "np.load", "numpy.load"}
            assert not [name for name in names if name in unsafe or name.startswith("pickle.")], file


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


MODEL_FILES = ["weights.safetensors", "encoder.onnx", "items.parquet", "training.jsonl", "manifest.json"]


@pytest.mark.parametrize("name", ["weights.safetensors", "encoder.onnx", "items.parquet", "data.pkl"])
def test_a_pickle_in_a_model_is_refused_even_with_its_checksum(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = shop_after_first_night().copy(tmp_path / "shop")
    monkeypatch.chdir(shop.folder)
    assert run_cli("build-sequences") == 0
    model = Path("models/current").resolve()
    (model / name).write_bytes(pickle.dumps(Evil()))
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(model.iterdir())}
    del files["manifest.json"]
    reseal(model, files=files)
    for command in (
        ["score", "--model", "models/current", "--out", "r"],
        ["train", "--init-from", "models/current", "--out", "m"],
        ["recommend", "--model", "models/current", "1001"],
    ):
        capsys.readouterr()
        assert run_cli(*command) == 4, command
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("batchrec: error:")]
        assert len(errors) == 1
    # A night trains another one.
    assert run_cli("run", "--run-date", "2024-03-08") == 0
    assert not (shop.folder / "pwned").exists()
    counts.add("pickles")


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_changed_byte_of_a_model_is_found_before_its_use(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_after_first_night().copy(tmp_path / "shop")
    monkeypatch.chdir(shop.folder)
    assert run_cli("build-sequences") == 0
    before = shop.state()
    version = next(iter(shop.registry.versions())).name
    for share in (0.0, CHANCE.random(), 0.999) if counts.IS_LONG else (CHANCE.random(),):
        whole = (shop.folder / "models" / version / name).read_bytes()
        flipped(f"models/{version}/{name}", share)(shop.folder)
        for command in (
            ["score", "--model", "models/current", "--out", "r"],
            ["train", "--init-from", "models/current", "--out", "m"],
            ["recommend", "--model", "models/current", "1001"],
            ["models", "rollback", version],
        ):
            assert run_cli(*command) == 4, command
        counts.add("model files with a changed byte")
        (shop.folder / "models" / version / name).write_bytes(whole)
    assert shop.state() == before
    flipped(f"models/{version}/{name}", CHANCE.random())(shop.folder)
    assert run_cli("run", "--run-date", "2024-03-02") == 0
    assert shop.state().in_use != version


SECRET = "hunter2-SECRET"  # noqa: S105 - it is to be looked for
SECRET_VALUES = [
    ("build-sequences", "ratings", f"postgresql://shop:{SECRET}@db.example/log"),
    ("build-sequences", "ratings", f"https://x.example/r.csv?token={SECRET}"),
    ("build-sequences", "query", f"s3://KEY:{SECRET}@bucket/q.sql"),
    ("score", "items", f"postgresql://shop:{SECRET}@db.example/items"),
    ("score", "users", f"password={SECRET}"),
]


@pytest.mark.parametrize("by", counts.some(("file", "environment"), "environment"))
@pytest.mark.parametrize(("table", "key", "value"), SECRET_VALUES)
def test_a_secret_reaches_no_log_report_or_metrics(table: str, key: str, value: str, by: str, tmp_path: Path) -> None:
    shop = shop_after_first_night().copy(tmp_path / "shop")
    environment: tuple[tuple[str, str], ...] = ()
    if by == "file":
        option(table, f"{key} = {json.dumps(value)}")(shop.folder)
    else:
        environment = ((f"BATCHREC_{table}_{key}".upper().replace("-", "_"), value),)
    for log_format in ("json", "text") if counts.IS_LONG else (CHANCE.choice(["json", "text"]),):
        command = ["run", "--run-date", "2024-03-02", "--metrics-file", "m.prom", "--log-format", log_format]
        code, child = run(shop.folder, command, Limits(environment=environment))
        assert code in {2, 3}, child.said
        assert SECRET not in child.said
    assert_nowhere(shop)
    counts.add("secrets")


def test_a_secret_in_the_name_of_a_folder_is_in_no_table_or_report(tmp_path: Path) -> None:
    shop = empty_shop(tmp_path / "shop")
    secret = f"password={SECRET}"
    (shop.folder / secret).mkdir()
    for name, table, key in (("ratings.csv", "build-sequences", "ratings"), ("movies.csv", "score", "items")):
        (shop.folder / name).rename(shop.folder / secret / name)
        option(table, f"{key} = {json.dumps(f'{secret}/{name}')}")(shop.folder)
    shop.run(0, "--metrics-file", "m.prom")
    assert_nowhere(shop)
    counts.add("secrets")


def assert_nowhere(shop: Shop) -> None:
    """Assert that no file holds the secret, except the one with the options."""
    holding = [path for path in shop.folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert [path.name for path in holding if path.name != "batchrec.toml"] == []


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002] if counts.IS_LONG else [0o027])
def test_published_files_have_the_modes_of_the_umask(umask: int, tmp_path: Path) -> None:
    shop = scene("carry-over").begin(tmp_path / "shop")
    given = {path for path in shop.folder.rglob("*") if "nights" not in path.parts}
    code, child = run(shop.folder, night_of(1, "--metrics-file", "m.prom"), Limits(umask=umask))
    assert code == 0, child.said
    new = set(shop.folder.rglob("*")) - given - {shop.folder / "nights/.lock"} - set(shop.folder.glob("nights/*01*"))
    for path in {*new, shop.folder / "recs.parquet"} - set(shop.folder.glob("nights/*01/*")) - {shop.folder / "nights"}:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    counts.add("umasks")


@pytest.mark.parametrize("stage", counts.some(("build-sequences", "train", "score", "check"), "check"))
def test_only_the_owner_can_read_unfinished_files(stage: str, tmp_path: Path) -> None:
    for number in range(8 if counts.IS_LONG else 1):
        shop = empty_shop(tmp_path / str(number))
        given = set(shop.folder.rglob("*")) | {shop.folder / "nights", shop.folder / "models"}
        child = start(shop.folder, night_of(0), Limits(umask=0))
        child.wait_for_line(f"{stage}: started")
        child.pause(CHANCE.uniform(0, 0.02))
        child.send(signal.SIGKILL)
        child.wait()
        if child.stage == "publish":
            continue  # the signal came too late: everything is finished, and everybody may read it
        left = set(shop.folder.rglob("*")) - given
        assert left
        for path in left:
            assert any(stat.S_IMODE(part.stat().st_mode) & 0o077 == 0 for part in (path, *path.parents)), path
        counts.add("unfinished files and folders looked at", len(left))
