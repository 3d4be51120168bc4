"""The packages that each module loads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import trained_model, write_sequences


@pytest.mark.parametrize(
    ("imported", "banned"),
    [
        ("batchrec", {"torch", "onnxruntime", "duckdb", "click", "pyarrow", "numpy"}),
        ("batchrec.scoring.score", {"torch", "onnx", "click"}),
        ("batchrec.scoring.recommend", {"torch", "onnx", "click"}),
        ("batchrec.similarity.publish", {"torch", "onnx", "click"}),
        ("batchrec.cli", {"torch", "onnxruntime", "duckdb"}),
        ("batchrec.doctor", {"torch", "onnxruntime", "onnx", "click"}),
        ("batchrec.sequences.build", {"torch", "onnxruntime", "click"}),
        ("batchrec.report_page.page", {"torch", "onnxruntime", "click", "jinja2", "vl_convert"}),
        ("batchrec.explorer.app", {"torch", "onnx", "click", "jinja2", "starlette", "uvicorn"}),
        ("batchrec.training.train", {"click"}),
    ],
)
def test_imports_load_no_package_they_do_not_need(imported: str, banned: set[str]) -> None:
    program = f"import sys, {imported}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {re.split(r"\.", module)[0] for module in done.stdout.split()}
    assert not loaded & banned


def test_help_loads_no_package_it_does_not_need() -> None:
    program = "import sys; from batchrec.cli import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Usage: batchrec" in done.stdout
    assert not set(done.stderr.split()) & {"torch", "onnxruntime", "duckdb", "pyarrow", "numpy"}


def test_scoring_runs_without_torch(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1001]})
    program = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from batchrec import score, ScoringConfig
report = score(Path({str(sequences)!r}), Path({str(trained_model())!r}), ScoringConfig(), Path({str(tmp_path / "r")!r}))
print(report.users)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
