"""The submit scripts start command lines that batchrec takes; the tests of the warehouse run them on clusters."""

import subprocess
from pathlib import Path

import pytest

from batchrec.cli import cli

EXAMPLES = Path(__file__).parents[2] / "examples"


def started(script: str, folder: Path, arguments: list[str], **environment: str) -> list[str]:
    """Run a script whose program is replaced by one that writes its arguments; return them."""
    program = folder / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$RAY_ADDRESS" "$@"\n')
    program.chmod(0o755)
    command = ["/bin/sh", str(EXAMPLES / script), *arguments]
    names = dict.fromkeys(("BATCHREC", "SPARK_SUBMIT"), str(program))
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **names, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(("given", "address"), [({}, "auto"), ({"RAY_ADDRESS": "head:6379"}, "head:6379")])
def test_ray_scores_on_the_cluster(given: dict[str, str], address: str, tmp_path: Path) -> None:
    used, *command = started("ray_submit.sh", tmp_path, ["--out", "r.parquet"], **given)
    assert used == address
    with cli.make_context("batchrec", [], resilient_parsing=True) as root:
        options = cli.commands[command[0]].make_context(command[0], command[1:], parent=root).params
    assert (options["engine"], options["out"]) == ("ray", "r.parquet")


@pytest.mark.parametrize("name", ["score", "build-sequences"])
def test_spark_submit_gets_a_program_and_its_command(name: str, tmp_path: Path) -> None:
    environment = {"MASTER": "local[2]", "SPARK_OPTIONS": "--num-executors 2", "RAY_ADDRESS": ""}
    _, *command = started("spark_submit.sh", tmp_path, [name, "--out", "o.parquet"], **environment)
    assert command[:6] == ["--master", "local[2]", "--deploy-mode", "client", "--num-executors", "2"]
    assert Path(command[6]).read_text().endswith("main()\n")
    with cli.make_context("batchrec", [], resilient_parsing=True) as root:
        options = cli.commands[command[7]].make_context(command[7], command[8:], parent=root).params
    assert (command[7], options["engine"], str(options["out"])) == (name, "spark", "o.parquet")
