"""Models, graphs and shops that are made once per test run, by the first process that needs them."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path

import onnx
import pytest
from filelock import FileLock
from safetensors.torch import save

from batchrec.model.blend import Blend
from batchrec.model.directory import ENCODER
from batchrec.model.graph import WEIGHTS, is_external
from batchrec.training import wide_top_k
from batchrec.training.encoder import Encoder
from batchrec.training.export import export_encoder, write_encoder
from batchrec.training.ranking_graph import NextItemRanker

Export = Callable[[Encoder, Path, Blend | None], None]

EXPORT = "batchrec.training.export.export_encoder"

# The variable that tells the folder to the other processes: pytest-xdist's workers, and programs that tests start.
_FOLDER = "SHARED_BY_TESTS"


@cache
def shared() -> Path:
    """Return the folder that all processes of the test run share; the first one makes it and removes it at its end."""
    if _FOLDER not in os.environ:
        folder = tempfile.mkdtemp(prefix="batchrec-tests-")
        os.environ[_FOLDER] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(os.environ[_FOLDER])


@cache
def scratch() -> Path:
    """Return a folder that only this process writes to, and that lives as long as the test run."""
    return Path(tempfile.mkdtemp(prefix="process-", dir=shared()))


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return a file or folder that is made by the first process that asks for it; do not change it.

    make: writes to the path that it is given.
    """
    made = shared() / name
    with FileLock(shared() / f"{name}.lock"):
        if not made.exists():
            # Renamed when it is complete, so that no process uses what a failed test has left.
            partial_name = scratch() / name
            with pytest.MonkeyPatch.context() as patch:
                # The first process may be in a test under no_export, but other tests need the real graph.
                patch.setattr(EXPORT, export_by_shape)
                make(partial_name)
            partial_name.rename(made)
    return made


def export_by_shape(encoder: Encoder, folder: Path, blend: Blend | None = None) -> None:
    """Write what export_encoder writes, but export only once per test run for encoders of one shape.

    An export takes seconds, and graphs of one shape differ only in their weights: tests/training/test_blended_graph.py.
    """
    weights = NextItemRanker(encoder, blend).state_dict()
    sizes = {name: tuple(weight.shape) for name, weight in weights.items()}
    parts = None if blend is None else (blend.has_encoder, blend.has_neighbours, blend.has_habit)
    is_wide = wide_top_k.is_wide(encoder.item_biases.numel())
    shape = (encoder.shape.objective, encoder.shape.n_heads, sizes, parts, is_wide)

    def write(template: Path) -> None:
        template.mkdir()
        shutil.copy(folder / WEIGHTS, template)
        export_encoder(encoder, template, blend)

    template = made_once(f"graph-{sha256(repr(shape).encode()).hexdigest()[:16]}", write)
    graph = onnx.load(template / ENCODER, load_external_data=False)
    for tensor in graph.graph.initializer:
        if tensor.name in weights and not is_external(tensor):
            tensor.raw_data = weights[tensor.name].numpy().tobytes()
    onnx.save(graph, folder / ENCODER)


def exported(encoder: Encoder, blend: Blend | None = None, export: Export = export_by_shape) -> Path:
    """Return a folder with the weights and the graph of an encoder; do not change it.

    export: export_encoder in tests of the export itself, which takes seconds. Equal encoders with equal blends have
    equal graphs.
    """
    parts = [export.__name__.encode(), repr(encoder.shape).encode(), save(encoder.state_dict())]
    parts += [] if blend is None else [array.tobytes() for array in blend.arrays().values()]

    def write(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EXPORT, export)
            write_encoder(encoder, folder, blend)

    return made_once(f"exported-{sha256(b''.join(parts)).hexdigest()[:16]}", write)


def write_exported(encoder: Encoder, folder: Path) -> None:
    """Write the weights and the graph of an encoder into a model directory, as write_encoder does."""
    shutil.copytree(exported(encoder), folder, dirs_exist_ok=True)
