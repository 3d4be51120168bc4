"""onnxruntime reports nothing to its makers."""

import os
import subprocess
import sys
from pathlib import Path

from onnx import TensorProto, helper

OPENED = """
import sys
from batchrec.model.graph import Graph
from batchrec.model.ranker import CPU, open_session

open_session(Graph(open(sys.argv[1], "rb").read()), CPU)[0].run(None, {"x": [1.0]})
"""


def test_a_session_leaves_no_device_id_and_no_queue_of_reports(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "one", values[:1], values[1:])
    file, folder = tmp_path / "graph.onnx", tmp_path / "user"
    opset = helper.make_opsetid("", 18)
    file.write_bytes(helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString())
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    subprocess.run([sys.executable, "-c", OPENED, file], env=environment, cwd=tmp_path, check=True)
    assert [*folder.rglob("*")] == []
