"""requirements-score.txt: what scoring imports, in the versions of the package. `make wheel-test` scores with it."""

import tomllib

from tests.support.pages import ROOT

EXAMPLE = ROOT / "examples" / "requirements-score.txt"


def test_the_requirements_are_among_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    of_the_package = {requirement.partition(";")[0].strip() for requirement in project["dependencies"]}
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    assert required <= of_the_package
    assert {line.partition(">")[0] for line in required}.isdisjoint({"torch", "onnxscript", "scipy"})
