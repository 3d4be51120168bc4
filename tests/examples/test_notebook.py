"""The notebook of the examples: its code runs, and it holds no outputs."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrec.interactive.model import Model
from tests.support.pages import ROOT, text_of

NOTEBOOK = json.loads(text_of("examples/notebook.ipynb"))
CODE: list[dict[str, Any]] = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_holds_no_outputs() -> None:
    assert len(CODE) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_the_code_of_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A notebook runs in its own folder.
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in CODE:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102 - the example is ours
    assert isinstance(names["model"], Model)
    assert len(names["figures"]) == 4
    assert pq.read_metadata(tmp_path / "demo" / "recs.parquet").num_rows == len(names["listed"]) == 1000
    assert names["report"].to_pandas()["method"].tolist()[0] == "model"
