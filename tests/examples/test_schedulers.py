"""The examples for schedulers load, and start command lines that batchrec accepts."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from batchrec.cli import cli
from tests.support.examples import EXAMPLES, load

CRON_LINE = (EXAMPLES / "crontab").read_text(encoding="utf-8").splitlines()[-1]
RUN_DATE = "2026-11-24"
REPORT = {"rows": 20, "users": 2, "users_carried_over": 1, "seconds": 1.5, "model": "m", "trained_because": None}


def options_of(command: list[str]) -> dict[str, Any]:
    """Parse a command line as batchrec does, without running it."""
    assert Path(command[0]).name == "batchrec"
    assert command[1] == "run"
    with cli.make_context("batchrec", [], resilient_parsing=True) as root:
        return cli.commands["run"].make_context("run", command[2:], parent=root).params


class Dag:
    """A stand-in for Airflow's DAG."""

    def __init__(self, dag_id: str, **options: Any) -> None:
        self.dag_id, self.options = dag_id, options

    def __enter__(self) -> "Dag":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Failure(Exception):  # noqa: N818 - Dagster's own name
    """A stand-in for Dagster's Failure."""

    def __init__(self, description: str, allow_retries: bool) -> None:
        super().__init__(description)
        self.allow_retries = allow_retries


@pytest.fixture
def airflow_tasks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace Airflow, and return a list of the tasks that an example makes."""
    tasks: list[dict[str, Any]] = []
    bash, sdk = "airflow.providers.standard.operators.bash", "airflow.sdk"
    for name in [".".join(bash.split(".")[:length]) for length in range(1, 6)] + [sdk]:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[bash], "BashOperator", lambda **options: tasks.append(options), raising=False)
    monkeypatch.setattr(sys.modules[sdk], "DAG", Dag, raising=False)
    return tasks


@pytest.fixture
def dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace Dagster by functions that return their arguments."""

    def asset(**_: Any) -> Callable[[Any], Any]:
        return lambda function: function

    names = ("DailyPartitionsDefinition", "RetryPolicy", "MaterializeResult", "Definitions")
    made: dict[str, Any] = dict.fromkeys(names, SimpleNamespace)
    made["define_asset_job"] = made["build_schedule_from_partitioned_job"] = lambda *_, **options: options
    stand_in = SimpleNamespace(asset=asset, AssetExecutionContext=object, Failure=Failure, **made)
    monkeypatch.setitem(sys.modules, "dagster", stand_in)


def test_the_cron_line_has_five_times_and_a_command_that_batchrec_takes() -> None:
    *times, command = CRON_LINE.split(maxsplit=5)
    assert [bool(re.fullmatch(r"\*|\d+(,\d+)*", time)) for time in times] == [True] * 5
    assert "%" not in command, "cron makes line ends of them"
    change_folder, _, rest = command.partition(" && ")
    assert change_folder == "cd /srv/recommendations"
    options = options_of(shlex.split(rest.partition(" >> ")[0]))
    assert options["json"]
    assert options["metrics_file"] == Path("batchrec.prom")


@pytest.mark.parametrize(("exit_code", "is_mailed"), [(0, False), (99, False), (7, False), (6, True), (1, True)])
def test_cron_mails_why_a_night_failed_and_nothing_else(tmp_path: Path, exit_code: int, is_mailed: bool) -> None:
    program = tmp_path / "batchrec"
    program.write_text(f"#!/bin/sh\necho begun >&2\necho '{{}}'\necho why >&2\nexit {exit_code}\n")
    program.chmod(0o700)
    command = CRON_LINE.split(maxsplit=5)[5].replace("/srv/recommendations", shlex.quote(str(tmp_path)))
    done = subprocess.run(
        ["sh", "-c", command],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "why\n" if is_mailed else "", "")


def test_airflow_runs_a_command_that_batchrec_takes(airflow_tasks: list[dict[str, Any]]) -> None:
    load("airflow_dag")
    (task,) = airflow_tasks
    rendered = task["bash_command"].replace("{{ data_interval_end | ds }}", RUN_DATE)
    options = options_of(shlex.split(rendered))
    assert str(options["run_date"]) == RUN_DATE
    assert options["json"]
    assert task["skip_on_exit_code"] == 99
    assert task["retries"] > 0


def test_airflow_itself_loads_the_dag() -> None:
    pytest.importorskip("airflow.sdk", reason="Airflow is not installed")
    (task,) = load("airflow_dag").dag.tasks
    assert task.skip_on_exit_code == [99]
    assert task.do_xcom_push


def dagster_run(
    monkeypatch: pytest.MonkeyPatch, exit_code: int, context: Any, made: Any = None
) -> tuple[list[str], Any]:
    """Materialize the asset with a night that ends with an exit code; return the command and the result."""
    commands: list[list[str]] = []
    example = made or load("dagster_assets")

    def started(command: list[str], **_: Any) -> Any:
        commands.append(command)
        stdout = "" if exit_code else json.dumps(REPORT)
        return SimpleNamespace(returncode=exit_code, stdout=stdout, stderr="begun\nwhy\n")

    with monkeypatch.context() as patch:
        patch.setattr(example, "subprocess", SimpleNamespace(run=started, PIPE=subprocess.PIPE))
        result = example.recs(context)
    return commands[0], result


@pytest.fixture
def context() -> Any:
    return SimpleNamespace(partition_key=RUN_DATE, log=SimpleNamespace(info=lambda _: None))


@pytest.mark.usefixtures("dagster")
def test_dagster_runs_a_command_that_batchrec_takes(monkeypatch: pytest.MonkeyPatch, context: Any) -> None:
    command, result = dagster_run(monkeypatch, 0, context)
    options = options_of(command)
    assert str(options["run_date"]) == RUN_DATE
    assert options["json"]
    assert result.metadata == {name: figure for name, figure in REPORT.items() if figure is not None}
    assert dagster_run(monkeypatch, 99, context)[1].metadata == {"nothing to do": True}


@pytest.mark.usefixtures("dagster")
@pytest.mark.parametrize(("exit_code", "again"), [(1, True), (3, True), (6, False), (7, True), (143, True)])
def test_dagster_retries_a_night_if_that_may_help(
    monkeypatch: pytest.MonkeyPatch, context: Any, exit_code: int, again: bool
) -> None:
    with pytest.raises(Failure, match="why") as raised:
        dagster_run(monkeypatch, exit_code, context)
    assert raised.value.allow_retries == again


def test_dagster_itself_loads_the_asset_and_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dg = pytest.importorskip("dagster", reason="Dagster is not installed")
    example = load("dagster_assets")
    command, result = dagster_run(monkeypatch, 0, dg.build_asset_context(partition_key=RUN_DATE), example)
    assert str(options_of(command)["run_date"]) == RUN_DATE
    assert result.metadata["rows"] == 20
    assert example.nights.get_last_partition_key() >= RUN_DATE
