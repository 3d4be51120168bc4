"""Every code block of the README and of docs/ runs as it is printed, on a small sample.

Blocks that cannot run here are checked in another way; the reason is next to each check.
"""

import csv
import re
import shlex
import shutil
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement

from batchrec.benchmark import bench as benchmark
from batchrec.benchmark.isolated import Measurement
from batchrec.cli import cli, run
from batchrec.cli.precedence import read_defaults
from batchrec.nightly.gates.model import HeldOutItems, MeasuredModel
from batchrec.nightly.report import ModelFigures
from examples.generate import generate
from tests.support.pages import ROOT, Block, blocks, text_of
from tests.support.params import slow_except
from tests.support.shared import EXPORT, export_by_shape, made_once

SMALL_TRAINING = " --max-epochs 2 --min-epoch-steps 2"
# Appended to commands that take minutes as they are printed.
SMALLER = {
    "train": SMALL_TRAINING,
    "evaluate": SMALL_TRAINING,
    "tune": " --max-trials 1 --trial-minutes 0.0001",
    "bench": " --users 80 --items 220 --ratings 2000 --repeats 1",
}
# Read once, so that nights are the same on both sides of a midnight.
TODAY = datetime.now(UTC).date()
# Dates of nights in the docs, and how many days before today the tests put them: no run date may be in the future.
NIGHTS = {"2026-11-24": 1, "2026-11-20": 8, "2026-11-19": 9}
# The page of each block of text, and the test that checks such blocks.
TEXTS = {
    "CONTRIBUTING.md": "test_the_layers_are_those_of_the_import_contract",
    "README.md": "test_pictures_name_the_commands",
    "docs/architecture.md": "test_pictures_name_the_commands",
    "docs/benchmarks.md": "test_the_printed_benchmark_has_the_layout_of_a_real_one",
    "docs/cli.md": "tests/docs/test_pages.py::test_generated_parts_are_up_to_date",
    "docs/recommend.md": "test_the_printed_recommendations_have_the_layout_of_real_ones",
    "docs/tune.md": "test_the_printed_trials_agree_with_each_other",
    "docs/tutorial.md": "test_shell_blocks_run",
    "docs/thirty-nights.md": "test_the_printed_nights_agree_with_their_summary",
}


def texts(test: str) -> list[Block]:
    """Return the blocks of text that a test checks."""
    return [block for block in blocks("text") if TEXTS[block.page] == test]


def write_csv(file: Path, *rows: tuple[object, ...]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(rows)


def write_inputs(folder: Path) -> None:
    """Write every file that a command of the docs reads."""
    generate(folder, n_users=40, seed=1)
    with (folder / "ratings.csv").open(encoding="utf-8") as opened:
        ratings = [(int(row["userId"]), int(row["movieId"]), int(row["timestamp"])) for row in csv.DictReader(opened)]
    with (folder / "movies.csv").open(encoding="utf-8") as opened:
        movies = [(int(row["movieId"]), row["title"], row["genres"]) for row in csv.DictReader(opened)]
    write_csv(folder / "movies.csv", ("movieId", "title", "genre"), *movies)
    items = [movie[0] for movie in movies]
    for name in ("plays", "by-day"):
        (folder / name).mkdir()
    write_csv(folder / "plays" / "1.csv", ("listener", "track", "played_at"), *ratings)
    write_csv(
        folder / "by-day" / "1.csv",
        ("InvoiceNo", "StockCode", "InvoiceDate", "CustomerID", "Quantity"),
        *[
            (number, item, datetime.fromtimestamp(time, UTC), user, 1)
            for number, (user, item, time) in enumerate(ratings)
        ],
    )
    kinds = ["view", "buy", "skip", "dislike"]
    write_csv(
        folder / "events.csv",
        ("userId", "movieId", "timestamp", "kind", "seconds"),
        *[(*rating, kinds[number % 4], number % 400) for number, rating in enumerate(ratings)],
    )
    write_csv(folder / "out-of-stock.csv", ("item_id",), *[(item,) for item in items[:9]])
    (folder / "stock.sql").write_text("select movieId as item_id from read_csv('movies.csv')", encoding="utf-8")
    write_csv(folder / "block.csv", ("item_id",), (items[30],))
    write_csv(folder / "campaign.csv", ("item_id", "factor"), (items[20], 2.5))
    write_csv(folder / "campaign-pins.csv", ("item_id", "position"), (items[21], 1))
    write_csv(folder / "users.csv", ("user_id", "country", "segment"), *[(user, "DE", "new") for user in range(1, 41)])
    write_csv(folder / "per-segment.csv", ("item_id", "segment"), *[(item, "new") for item in items])
    recs = [(user, item, rank) for user in range(1, 41) for rank, item in enumerate(items[:10])]
    for name in ("ours.csv", "theirs.csv"):
        write_csv(folder / name, ("user_id", "item_id", "rank"), *recs)
    last = {user: item for user, item, _ in sorted(ratings, key=lambda rating: rating[2])}
    write_csv(folder / "test-items.csv", ("user_id", "item_id"), *last.items())
    users, tracks, times = zip(*ratings, strict=True)
    for name in ("bought-elsewhere", "per-user"):
        pq.write_table(pa.table({"user_id": users, "item_id": tracks}), folder / f"{name}.parquet")
    played_at = pa.array(times, pa.timestamp("s"))
    with duckdb.connect(folder / "warehouse.duckdb") as con:
        con.from_arrow(pa.table({"player_uuid": users, "game_id": tracks, "played_at": played_at})).create("plays")


def count_as_better_than_popularity(patch: pytest.MonkeyPatch) -> None:
    """Let a model of two epochs pass the model gate: whether it ranks better depends on the processor's rounding."""

    def measure(_: HeldOutItems, model: Path, *__: object) -> MeasuredModel:
        return MeasuredModel(ModelFigures(model.name, 0.2, 0.1, 0.0), np.empty(0))

    patch.setattr(HeldOutItems, "measure", measure)


def write_two_nights(folder: Path) -> None:
    """Make a folder with all inputs, two published nights, their models, and one more in model/."""
    folder.mkdir()
    write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BATCHREC_TRAIN_MAX_EPOCHS", "2")
        patch.setenv("BATCHREC_TRAIN_MIN_EPOCH_STEPS", "2")
        count_as_better_than_popularity(patch)
        for days_ago in (9, 8):
            assert run(["run", "--run-date", night(days_ago), "--train-every", "1d"]) == 0
        assert run(["build-sequences"]) == 0
    shutil.copytree((folder / "models" / "current").resolve(), folder / "model")


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_export: None) -> Path:
    """Make a copy of that folder the current one, and return it; `run` no longer trains, `train` exports no graph."""
    two_nights = made_once(f"two-nights-{TODAY}", write_two_nights)
    shutil.copytree(two_nights, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHREC_RUN_TRAIN_EVERY", "30d")
    # It would serve until a signal arrives; tests/explorer has one sent.
    monkeypatch.setattr("batchrec.explorer.app.serve", lambda *_: None)
    # tune has no option for it.
    monkeypatch.setenv("BATCHREC_TRAIN_MIN_EPOCH_STEPS", "2")
    count_as_better_than_popularity(monkeypatch)
    return tmp_path


def night(days_ago: int) -> str:
    return (TODAY - timedelta(days=days_ago)).isoformat()


def run_as_printed(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a line of a shell block that begins with batchrec, or with variables before it; return its exit code."""
    for printed, days_ago in NIGHTS.items():
        command = command.replace(printed, night(days_ago))
    words = shlex.split(command, comments=True)
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            patch.setenv(*words.pop(0).split("=", 1))
        return run([*words[1:], *shlex.split(SMALLER.get(words[1], ""))])


def check_other_command(line: str) -> None:
    """Check a line that cannot run in a test: it would install packages, need a GPU, or take minutes."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        # A target makes environments, downloads or trains for minutes; `make` itself is tried by .ci/run.
        assert re.search(rf"^{re.escape(words[1])}:|^\$\(INSTALLED\):", text_of("Makefile"), flags=re.MULTILINE), line
    elif words[:2] == ["python", "-c"]:
        exec(compile(words[2], line, "exec"), {})  # noqa: S102 - the example is ours
    elif words[0] == "head":
        print(Path(words[2]).read_text(encoding="utf-8").splitlines()[0])  # noqa: T201 - as the command does
    elif words[0] in {"cd", "curl", "git", ".", "printf"} or words[1] == "-m":
        # They clone, download, make an environment, and a file that the sample has.
        assert words[0] not in {"python", "python3"} or words[2] in {"venv", "zipfile"}, line
    elif words[:2] == ["pip", "install"]:
        # Installing changes the environment of the tests.
        check_install(words[2:])
    elif words[0] == "torchrun":
        # Several processes are started in tests/training/test_distributed.py; here only the line is parsed.
        program = words[words.index("-m") + 1 :]
        assert program[0] == "batchrec"
        cli.commands[program[1]].make_context(program[1], program[2:], parent=click.Context(cli))
    else:
        # Tools of the environment, in CONTRIBUTING: they write to the checkout.
        assert words[0].startswith((".venv/bin/", ".ci/", "BATCHREC_", "git")), f"no check for this command: {line}"


def check_install(arguments: list[str]) -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    for argument in arguments:
        if argument.startswith("-") or argument == "." or (ROOT / argument).is_file():
            continue
        requirement = Requirement(re.sub(r"^\.(?=\[)", project["name"], argument))
        assert requirement.name == project["name"]
        assert requirement.extras <= project["optional-dependencies"].keys()


def test_every_block_has_a_check() -> None:
    for block in blocks():
        assert block.language in {"sh", "python", "toml", "sql", "text"}, f"{block}: no test for {block.language!r}"
        assert block.language != "text" or block.page in TEXTS, f"{block}: no test for this text"


# The queries of the how-tos read other logs, which tests/docs/test_howtos.py makes.
LOG_QUERIES = [block for block in blocks("sql") if "howto" not in block.page]
WITH_COMMANDS = sorted({block.page for block in blocks("sh")})
QUICK_PAGES = {"README.md", "docs/quickstart.md"}


@pytest.mark.parametrize("page", slow_except(WITH_COMMANDS, *QUICK_PAGES))
def test_shell_blocks_run(
    page: str, sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (sample / "events.sql").write_text(LOG_QUERIES[0].text, encoding="utf-8")
    if page == "docs/tutorial.md":
        # It scores with the model that it trains.
        monkeypatch.setattr(EXPORT, export_by_shape)
    for block in [block for block in blocks() if block.page == page]:
        if block.language == "toml" and page == "docs/tutorial.md":
            (sample / "batchrec.toml").write_text(block.text, encoding="utf-8")
        if block.language == "text" and TEXTS[page] == "test_shell_blocks_run":
            # The block before it has printed these lines, from another log: their names are the same.
            assert labels_of(block.text) <= labels_of(capsys.readouterr().out) or "$ batchrec" in block.text, block
        for line in block.text.splitlines() if block.language == "sh" else ():
            if line.startswith("batchrec bench"):
                assert block.page in TEXTS  # Run once, by the test of its output.
            elif re.match(r"([A-Z_]+=\S+ )*batchrec ", line):
                # 99: an earlier line has published the same night, from the same log.
                assert run_as_printed(line, monkeypatch) in ({0, 99} if " run " in line else {0}), f"{block}: {line}"
            else:
                check_other_command(line)


def labels_of(text: str) -> set[str]:
    """Return how the lines begin: the names before a value, without rows of values and frames of tables."""
    starts = [re.split(r" {2,}|: | against ", line.strip())[0] for line in text.splitlines()]
    return {start for start in starts if re.search("[a-z]", start)}


@pytest.mark.parametrize("block", list(blocks("python")), ids=str)
def test_python_blocks_run(block: Block, sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "vectors/" in block.text:
        assert run(["export-vectors", "--out", "vectors"]) == 0
        capsys.readouterr()
        exec(compile(block.text, block.page, "exec"), {})  # noqa: S102 - the example is ours
        user_id, *_ = capsys.readouterr().out.split()
        assert user_id == str(pq.read_table(sample / "vectors" / "users.parquet")["user_id"][0])
        return
    if "SimilarConfig" in block.text:
        exec(compile(block.text, block.page, "exec"), {})  # noqa: S102 - the example is ours
        assert pq.read_metadata(sample / "similar.parquet").num_rows > 0
        return
    if "print(model)" in block.text:
        exec(compile(block.text, block.page, "exec"), {})  # noqa: S102 - the example is ours
        assert capsys.readouterr().out.startswith("Model(causal encoder")
        return
    assert "max_epochs=5" in block.text
    if "recs.parquet" in block.text:
        (sample / "recs.parquet").unlink()
    small = block.text.replace("max_epochs=5", "max_epochs=1, min_epoch_steps=1")
    exec(compile(small, block.page, "exec"), {})  # noqa: S102 - the example is ours
    assert (sample / "recs.parquet").is_file()


@pytest.mark.parametrize("block", LOG_QUERIES, ids=str)
def test_queries_run(block: Block, sample: Path) -> None:
    (sample / "query.sql").write_text(block.text, encoding="utf-8")
    assert run(["build-sequences", "--query", "query.sql"]) == 0


@pytest.mark.parametrize("block", list(blocks("toml")), ids=str)
def test_files_of_options_are_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "batchrec.toml").write_text(block.text, encoding="utf-8")
    options = read_defaults(cli, tmp_path / "batchrec.toml")
    assert options is not None
    assert options.keys() == tomllib.loads(block.text).keys()


def test_pictures_name_the_commands() -> None:
    for block in texts("test_pictures_name_the_commands"):
        assert {"build-sequences", "train", "score"} <= set(re.findall(r"[a-z]+(?:-[a-z]+)?", block.text)), block


def test_the_layers_are_those_of_the_import_contract() -> None:
    (contract, *_) = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (block,) = texts("test_the_layers_are_those_of_the_import_contract")
    assert block.text.splitlines() == [layer.replace("batchrec.", "") for layer in contract["layers"]]


def layout_of(text: str) -> list[str]:
    """Return the lines with a 0 for every number and one blank for several."""
    return [" ".join(re.sub(r"\d[\d,.]*", "0", line).split()) for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_the_printed_benchmark_has_the_layout_of_a_real_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The printed run takes 9 minutes: a small one has the same lines, with other numbers. Its stages run in this
    # process; tests/benchmark starts one for each.
    monkeypatch.setattr(benchmark, "run_isolated", lambda stage, *arguments: Measurement(1.0, 1.0, stage(*arguments)))
    command, _ = [block.text for block in blocks("sh") if block.text.startswith("batchrec bench")]
    assert run_as_printed(command, monkeypatch) == 0
    real, printed, printed_of_wide = (
        [line.split(":")[0] for line in layout_of(text)]
        for text in (
            capsys.readouterr().out,
            *(block.text for block in texts("test_the_printed_benchmark_has_the_layout_of_a_real_one")),
        )
    )
    assert printed == real
    # tests/benchmark runs a small log of that shape: it has no rows by users.
    of_wide = [line.replace("TopK alone", "the maxima of groups") for line in real if " by users" not in line]
    assert printed_of_wide == [*of_wide[:2], "0 of the users are scored", *of_wide[2:]]


def test_the_printed_recommendations_have_the_layout_of_real_ones(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The printed ones need ml-latest-small and a long training: titles and scores differ, the lines do not.
    with (sample / "movies.csv").open(encoding="utf-8") as opened:
        titles = [row["title"] for row in csv.DictReader(opened)]
    for block in blocks("text"):
        if not block.text.startswith("$ batchrec recommend"):
            continue
        command, *printed = block.text.splitlines()
        words = shlex.split(command.removeprefix("$ batchrec "))
        params = cli.commands["recommend"].make_context("recommend", words[1:], parent=click.Context(cli)).params
        options = [word for word in words if word not in params["items_seen"]]
        capsys.readouterr()
        assert run([*options, *titles[: len(words) - len(options)]]) == 0
        real = capsys.readouterr().out.splitlines()
        assert [line[:6] for line in printed] == [line[:6] for line in real], block
        assert [bool(re.search(r"  \(\d+\.\d\d\)$", line)) for line in printed] == [
            bool(re.search(r"  \(-?\d+\.\d\d\)$", line)) for line in real
        ], block


def test_the_printed_trials_agree_with_each_other() -> None:
    # The printed search takes minutes; tests/tuning has small ones.
    for block in texts("test_the_printed_trials_agree_with_each_other"):
        table, _, changed = block.text.partition("\n\n[train]\n")
        head, *rows = [re.split(r" {2,}", line.lstrip("* ")) for line in table.splitlines()]
        trials = [dict(zip(head, row, strict=True)) for row in rows]
        (best,) = [line.split()[1] for line in table.splitlines() if line.startswith("*")]
        assert max(trials, key=lambda trial: float(trial["NDCG@10"]))["trial"] == best
        options = {name: value for name, value in trials[int(best)].items() if name in head[1:-4]}
        expected = {f"{name} = {value}" for name, value in options.items() if value != trials[0][name]}
        assert set(changed.split("\n\n")[0].splitlines()) == expected, block


def test_the_printed_nights_agree_with_their_summary() -> None:
    # They need a shop's data and 9 minutes: `make thirty-nights` prints them, tests/examples has the program.
    (block,) = texts("test_the_printed_nights_agree_with_their_summary")
    *nights, summary, failure = block.text.splitlines()
    dates = [datetime.strptime(line[:14], "%a %Y-%m-%d").replace(tzinfo=UTC).date() for line in nights]
    codes = [int(re.findall(r"exit (\d+);", line)[0]) for line in nights]
    assert dates == [dates[0] + timedelta(days=number) for number in range(30)]
    assert set(codes) == {0, 6}
    assert summary.startswith(f"{len(nights)} nights: {codes.count(0)} published; ")
    assert failure.startswith(f"{dates[codes.index(6)]} failed with exit code 6: input gate: ")
