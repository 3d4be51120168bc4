"""The sizes that CONTRIBUTING sets for modules and functions hold."""

import ast
from pathlib import Path

import pytest

from tests.support.pages import ROOT

MODULES = sorted(ROOT.glob("batchrec/**/*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_under_300_lines_and_functions_under_50(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            n_lines_of_docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) else 0
            n_lines = (node.end_lineno or 0) - node.lineno + 1 - n_lines_of_docstring
            assert n_lines < 50, f"{module}:{node.lineno} {node.name}: {n_lines} lines"


def test_ids_of_tests_hold_no_compressed_files(request: pytest.FixtureRequest) -> None:
    """Workers compare the ids of all tests, and a gzip file that is made a second later has other bytes."""
    assert [item.nodeid for item in request.session.items if r"\x1f\x8b" in item.nodeid] == []
