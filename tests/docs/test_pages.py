"""The pages of the documentation agree with the program, with each other, and with the files that they name."""

import re
import tomllib
from pathlib import Path

import click
import pyarrow as pa
import pytest
from cogapp import Cog

import batchrec
from batchrec import errors
from batchrec.cli import cli
from batchrec.tables.schemas import SOURCES, recs_schema
from tests.support.pages import PAGES, ROOT, text_of

GENERATED = ("docs/cli.md", "docs/configuration.md")


def test_generated_parts_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert Cog().main(["cog", "--check", *GENERATED]) == 0, "run make readme"


def test_every_command_and_option_is_documented() -> None:
    commands = text_of("docs/cli.md")
    configuration = text_of("docs/configuration.md")
    for name, command in cli.commands.items():
        assert f"## batchrec {name}\n" in commands
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.opts[0] in commands, f"{name} {option.opts[0]}"
                if name not in {"init", "rollback", "models"}:
                    variable = f"BATCHREC_{name.replace('-', '_')}_{option.name}".upper()
                    assert f"`{variable}`" in configuration, variable


def test_the_page_of_python_lists_what_is_public() -> None:
    section = text_of("docs/python.md").split("## Public names\n", 1)[1]
    rows = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    assert sorted(name.strip("`") for row in rows for name in row.split(", ")) == sorted(batchrec.__all__)


def test_exit_codes_are_those_of_the_errors() -> None:
    codes = {error.exit_code for error in errors.BatchrecError.__subclasses__()} | {0, 1, 130, 143}
    for page, heading in (("docs/cli.md", "## Exit codes\n"), ("docs/nightly.md", "## When it fails\n")):
        section = text_of(page).split(heading, 1)[1].split("\n## ", 1)[0]
        rows = re.findall(r"^\| ([\d, ]+) \|", section, flags=re.MULTILINE)
        assert {int(code) for row in rows for code in row.split(",")} == codes, page


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_printed_table_is_one_of_recs(page: str) -> None:
    table = text_of(page).split("| user_id | rank |", 1)[1].split("\n\n", 1)[0]
    header, _, *rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in f"user_id | rank |{table}".splitlines()
    ]
    schema = recs_schema(pa.int64(), pa.int64(), with_titles=True, made_by={})
    assert header == [name for name in schema.names if name != "history_digest"]
    assert [row[1] for row in rows] == ["1", "2", "3", "1", "2", "3"]
    assert {row[4] for row in rows} <= set(SOURCES)
    scores = [float(row[3]) for row in rows]
    assert scores == [*sorted(scores[:3], reverse=True), *sorted(scores[3:], reverse=True)]


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page)):
        assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
    for target in re.findall(r"github\.com/batchrec/batchrec/blob/main/([^)#\s]+)", text_of(page)):
        assert (ROOT / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_named_files_exist(page: str) -> None:
    names = re.findall(r"`([\w./]+(?:\.(?:py|sql|md|toml|txt)|/))`", text_of(page))
    assert len(names) > 10
    for name in names:
        places = (ROOT / name, ROOT / "batchrec" / name, ROOT / "sql" / "sequences" / name)
        assert any(place.exists() for place in places), f"{page}: {name}"


def test_every_invariant_has_its_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text_of("docs/architecture.md"))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_the_readme_is_short() -> None:
    readme = text_of("README.md")
    assert len(readme.split()) <= 900
    assert all(len(line) <= 100 for line in readme.splitlines() if not line.startswith(("[![", "| ")))


def test_documented_targets_are_those_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", text_of("Makefile"), flags=re.MULTILINE))
    described = set(re.findall(r"^\| `make ([a-z-]+)", text_of("CONTRIBUTING.md"), flags=re.MULTILINE))
    assert described <= targets
    assert {"demo", "test", "check", "docs", "readme", "faults", "wheel-test"} <= described


def test_hooks_run_the_tools_of_the_gate() -> None:
    hooks = set(re.findall(r"entry: \.venv/bin/([a-z-]+)", text_of(".pre-commit-config.yaml")))
    gate = text_of("Makefile").split("\ncheck:", 1)[1].split("\n\n", 1)[0]
    assert hooks == set(re.findall(r"\$\(BIN\)/([a-z-]+)", gate))


def test_hosted_ci_runs_the_gate_on_every_supported_python() -> None:
    workflow = text_of(".github/workflows/ci.yml")
    classifiers = tomllib.loads(text_of("pyproject.toml"))["project"]["classifiers"]
    supported = [line.rsplit(" ", 1)[1] for line in classifiers if re.search(r"Python :: 3\.\d+$", line)]
    (tested,) = re.findall(r"^ +python: \[(.*)\]$", workflow, flags=re.MULTILINE)
    assert tested.replace('"', "").split(", ") == supported
    assert workflow.count("- run: bash .ci/run") == workflow.count("runs-on:")
    assert Path(ROOT / ".ci" / "run").is_file()
