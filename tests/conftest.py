import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook

from batchrec.cli import run
from batchrec.config import Objective
from batchrec.model.ranker import CPU, CUDA
from batchrec.tables.queries import database_of, one_database
from batchrec.training.export import export_encoder
from tests.support.models import OBJECTIVES, write_graph
from tests.support.shared import EXPORT, export_by_shape, shared
from tests.support.shared_duckdb import DATABASE_OF, close_databases, shared_database_of

# Libraries that would start a thread per core in every worker.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class Outcome:
    """Result of `batchrec build-sequences --json`; rows: those of sequences.parquet, if it succeeded."""

    exit_code: int
    stderr: str
    report: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def histories(self) -> dict[Any, list[Any]]:
        return {row["user_id"]: row["item_ids"] for row in self.rows}

    @property
    def times(self) -> list[int]:
        return [time for row in self.rows for time in row["timestamps"]]


BuildSequences = Callable[..., Outcome]


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all workers share, and leave each of them one core."""
    shared()
    # The page of a night takes as long as the rest of a tiny one. Tests of the page ask for it.
    os.environ.setdefault("BATCHREC_RUN_REPORT", "false")
    if config.getoption("numprocesses", None):
        for name in _THREADS:
            os.environ.setdefault(name, "1")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Number the tests of a parameter of bytes: a gzip file has the second it was made in, and workers must agree."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Cut the link from the modules to pytest, so that Python can free DuckDB's types before it ends.

    pytest loads the modules whose assertions it rewrites, and their loader refers to the whole session. A module that
    is freed late keeps all tests alive, and the library that binds DuckDB reports on stderr that its types leaked.
    """
    for finder in [finder for finder in sys.meta_path if isinstance(finder, AssertionRewritingHook)]:
        sys.meta_path.remove(finder)
        vars(finder).clear()


@pytest.fixture(scope="session")
def temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The names of new folders, in one of their own: for each `tmp_path` pytest lists all folders next to it."""
    parent = tmp_path_factory.mktemp("system")
    return (str(parent / str(number)) for number in count())


@pytest.fixture(autouse=True)
def own_temporary_folder(temporary_folders: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a temporary folder per test, without files of other programs or of tests that kill processes."""
    folder = next(temporary_folders)
    Path(folder).mkdir(0o700)
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(tempfile, "tempdir", folder)


@pytest.fixture(scope="session", autouse=True)
def one_duckdb_per_process() -> Iterator[None]:
    """Let connections without options share a DuckDB, each with a catalog and a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DATABASE_OF, shared_database_of)
        yield
    close_databases()


@pytest.fixture
def own_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a DuckDB for each connection of a test, as for a user."""
    monkeypatch.setattr(DATABASE_OF, database_of)


@pytest.fixture(scope="module")
def one_duckdb() -> Iterator[None]:
    """Let the jobs of a module's tests share a DuckDB: to start one takes longer than the queries of a tiny log."""
    with one_database():
        yield


@pytest.fixture(params=OBJECTIVES, scope="session")
def objective(request: pytest.FixtureRequest) -> Objective:
    """Run the test once per objective."""
    chosen: Objective = request.param
    return chosen


@pytest.fixture(scope="session", autouse=True)
def one_export_per_shape() -> Iterator[None]:
    """Let the trainings of all tests share the exports of graphs of one shape, which take most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EXPORT, export_by_shape)
        yield


@pytest.fixture
def every_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export each graph of a test on its own, as a user's training does."""
    monkeypatch.setattr(EXPORT, export_encoder)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the export of the graph, which takes most of the time of a training and has tests of its own."""
    monkeypatch.setattr(EXPORT, write_graph)
    monkeypatch.setattr("batchrec.training.train.check_parity", lambda *_: 0.0)


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine with CUDA's libraries and driver but no GPU: onnxruntime falls back and prints a message."""
    if CUDA not in ort.get_available_providers():
        pytest.skip("onnxruntime is built without CUDA")
    create = ort.InferenceSession._create_inference_session

    def fail(session: Any, providers: list[Any], *rest: Any) -> None:
        # A provider with options is a pair: its name and the options.
        if any(CUDA in provider for provider in providers):
            session._fallback_providers = [CPU]
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        create(session, providers, *rest)

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildSequences:
    """Return a function that runs `batchrec build-sequences` in an empty folder, which becomes the current one."""
    monkeypatch.chdir(tmp_path)
    # Small logs have times like 4 and 5, for which the command would refuse to guess a unit.
    monkeypatch.setenv("BATCHREC_BUILD_SEQUENCES_TIMESTAMP_UNIT", "s")

    def run_in_folder(*arguments: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            exit_code = run(["build-sequences", "--json", *arguments])
        if exit_code:
            return Outcome(exit_code, err.getvalue(), {}, [])
        report = json.loads(out.getvalue())
        return Outcome(exit_code, err.getvalue(), report, pq.read_table(Path(report["out"])).to_pylist())

    return run_in_folder


@pytest.fixture
def detected_unit(build: BuildSequences, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `build` detect the unit of times, as the command does for a user."""
    monkeypatch.delenv("BATCHREC_BUILD_SEQUENCES_TIMESTAMP_UNIT")
