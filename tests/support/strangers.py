"""Model directories that a stranger has changed, with hashes that fit again."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import ModelError
from batchrec.model.directory import Manifest, load_model
from tests.support.models import run_cli, training_sequences

Change = Callable[[Path], object]


def reseal(model: Path, **changes: Any) -> None:
    """Make all hashes and the model's id fit the files again. changes: other values of the manifest."""
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    files = {name: sha256((model / name).read_bytes()).hexdigest() for name in manifest["files"]}
    model_id = sha256((files["weights.safetensors"] + files["items.parquet"]).encode()).hexdigest()[:12]
    changed = Manifest(**manifest | {"files": files, "model_id": model_id, "seal": ""} | changes)
    (model / "manifest.json").write_bytes(changed.sealed().to_json())


def assert_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Assert that scoring ends with 4, one line and no table; return that line."""
    with pytest.raises(ModelError):
        load_model(model)
    out = model.parent / "recs.parquet"
    capsys.readouterr()
    assert run_cli("score", "--sequences", training_sequences(), "--model", model, "--out", out, "--device", "cpu") == 4
    said = capsys.readouterr()
    assert not out.exists()
    assert len(said.err.splitlines()) == 1
    assert str(model) in said.err
    return said.err
