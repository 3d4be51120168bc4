"""The examples for several machines load, and the commands that they start make the table of one scoring."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]

from batchrec.cli import run
from tests.support.examples import EXAMPLES, load
from tests.support.models import trained_model, training_histories, write_sequences

ROOT = Path(__file__).parents[2]
RUN_DATE = "2026-11-24"
# Writes its arguments as a line of JSON.
PROGRAM = '#!{python}\nimport json, sys\nopen("{lines}", "a").write(json.dumps(sys.argv[1:]) + "\\n")\n'


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Put a stand-in for batchrec into a folder with the inputs; return the file of the commands that it was given."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    program, lines = tmp_path / ".venv" / "bin" / "batchrec", tmp_path / "commands.jsonl"
    program.write_text(PROGRAM.format(python=sys.executable, lines=lines))
    program.chmod(0o700)
    return lines


def start(command: list[str], folder: Path, **variables: str) -> None:
    """Start a command of an example in the folder, which has the stand-in for batchrec."""
    path = f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, env={"PATH": path, **variables}, check=True)


def check_commands(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands that an example has started: the table is that of one scoring."""
    # Only the examples' own options and those that make scores exact.
    monkeypatch.chdir(commands.parent)
    monkeypatch.setenv("BATCHREC_SCORE_BATCH_TOKENS", "1")
    monkeypatch.setenv("BATCHREC_SCORE_DEVICE", "cpu")
    write_sequences(Path("sequences.parquet"), training_histories() | {501: [7]})
    shutil.copytree(trained_model(), "model")
    given = [json.loads(line) for line in commands.read_text().splitlines()]
    assert [arguments[0] for arguments in given] == ["score"] * 4 + ["commit"]
    for arguments in given:
        assert run(arguments) == 0
    assert run(["score", "--run-date", RUN_DATE, "--out", "plain.parquet"]) == 0
    assert pq.read_table("recs.parquet").equals(pq.read_table("plain.parquet"))


def test_kubernetes_jobs_make_the_table(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score, commit = yaml.safe_load_all((EXAMPLES / "kubernetes_shards.yaml").read_text())
    for job, step in ((score, "score"), (commit, "commit")):
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
        assert job["metadata"]["labels"] == {"step": step}
        pod = job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {"data": pod["containers"][0]["workingDir"]}
        assert [volume["name"] for volume in pod["volumes"]] == ["data"]
    assert score["spec"]["completionMode"] == "Indexed"
    for index in range(score["spec"]["completions"]):
        command = score["spec"]["template"]["spec"]["containers"][0]["command"]
        start(command, commands.parent, JOB_COMPLETION_INDEX=str(index))
    start(commit["spec"]["template"]["spec"]["containers"][0]["command"], commands.parent)
    check_commands(commands, monkeypatch)


def test_the_slurm_array_makes_the_table(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = EXAMPLES / "slurm_shards.sh"
    text = script.read_text()
    first, last = map(int, re.findall(r"^#SBATCH --array=(\d+)-(\d+)$", text, flags=re.MULTILINE)[0])
    assert first == 0
    for index in range(last + 1):
        variables = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(last + 1)}
        start(["bash", str(script), RUN_DATE], commands.parent, **variables)
    (wrapped,) = re.findall(r'--wrap "(.*)"', text)
    start(["sh", "-c", wrapped], commands.parent)
    check_commands(commands, monkeypatch)


class Operator:
    """A stand-in for Airflow's BashOperator; all that are made are listed."""

    made: list["Operator"]

    def __init__(self, **options: Any) -> None:
        self.options, self.upstream = options, list[Operator]()
        self.made.append(self)

    @classmethod
    def partial(cls, **options: Any) -> "Operator":
        return cls(**options)

    def expand(self, env: list[dict[str, str]]) -> "Operator":
        self.options["mapped_env"] = env
        return self

    def __rshift__(self, following: "Operator") -> None:
        following.upstream.append(self)


class Dag:
    """A stand-in for Airflow's DAG."""

    def __init__(self, _dag_id: str, **_: Any) -> None:
        pass

    def __enter__(self) -> "Dag":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def airflow_tasks(monkeypatch: pytest.MonkeyPatch) -> list[Operator]:
    """Load the DAG with stand-ins for Airflow; return its tasks."""
    bash, sdk = "airflow.providers.standard.operators.bash", "airflow.sdk"
    for name in [".".join(bash.split(".")[:length]) for length in range(1, 6)] + [sdk]:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    Operator.made = []
    monkeypatch.setattr(sys.modules[bash], "BashOperator", Operator, raising=False)
    monkeypatch.setattr(sys.modules[sdk], "DAG", Dag, raising=False)
    load("airflow_shards")
    return Operator.made


def test_airflow_maps_tasks_that_make_the_table(
    airflow_tasks: list[Operator], commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, commit = airflow_tasks
    assert commit.upstream == [score]
    assert score.options["append_env"]
    for env in score.options["mapped_env"]:
        rendered = score.options["bash_command"].replace("{{ data_interval_end | ds }}", RUN_DATE)
        start(["bash", "-c", rendered], commands.parent, **env)
    start(["bash", "-c", commit.options["bash_command"]], commands.parent)
    check_commands(commands, monkeypatch)


def test_airflow_itself_loads_the_dag() -> None:
    pytest.importorskip("airflow.sdk", reason="Airflow is not installed")
    score, commit = load("airflow_shards").dag.tasks
    assert commit.upstream_task_ids == {score.task_id}


def containerfile() -> list[tuple[str, str]]:
    """Return the instructions of the Containerfile and their arguments, without comments and line breaks."""
    text = re.sub(r"^#.*\n", "", (EXAMPLES / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", "").splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_containerfile_copies_what_the_build_needs() -> None:
    copied = {name for instruction, rest in containerfile() if instruction == "COPY" for name in rest.split()[:-1]}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    targets = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*targets["packages"], *targets["force-include"], pyproject["project"]["readme"], "pyproject.toml"}
    assert needed | set(pyproject["project"]["license-files"]) <= copied


def test_the_containerfile_has_an_image_for_a_cpu_and_one_for_gpus() -> None:
    stages: dict[str, list[tuple[str, str]]] = {}
    for instruction, rest in containerfile():
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            assert base in stages or base.startswith("docker.io/library/python:3.")
            stages[name] = []
        else:
            stages[list(stages)[-1]].append((instruction, rest))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, extra in (("cpu", '""'), ("gpu", "cuda")):
        instructions = dict(stages[name])
        assert instructions["ARG"] == f"EXTRAS={extra}"
        assert extra in {'""', *extras}
        assert json.loads(instructions["ENTRYPOINT"]) == ["batchrec"]
        assert instructions["USER"] == "batchrec"
        installs = [shlex.split(rest) for instruction, rest in stages[name] if instruction == "RUN" and "pip" in rest]
        assert installs[0][:2] == ["pip", "install"]
        assert installs[0][-1] == ".[${EXTRAS}]"
