"""The policy for waiting threads is set before torch, which reads it once, is loaded."""

import json
import subprocess
import sys

import pytest

# Import each module from scratch, and record the policy whenever one asks for torch; torch itself is not loaded.
PROGRAM = """
import importlib, json, os, pkgutil, sys

policies = []

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            policies.append(os.environ.get("OMP_WAIT_POLICY"))
            raise ImportError("torch is not loaded here")

sys.meta_path.insert(0, NoTorch())
by_module = {}
for folder in ("benchmark", "evaluation", "training"):
    package = importlib.import_module(f"batchrec.{folder}")
    for module in pkgutil.iter_modules(package.__path__, f"batchrec.{folder}."):
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "batchrec"]:
            del sys.modules[loaded]
        os.environ.pop("OMP_WAIT_POLICY", None)
        policies.clear()
        try:
            importlib.import_module(module.name)
        except ImportError:
            by_module[module.name] = policies[:]
print(json.dumps(by_module))
"""


@pytest.mark.slow
def test_waiting_threads_sleep_in_every_module_that_loads_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    policies = json.loads(done.stdout)
    assert {"batchrec.benchmark.models", "batchrec.benchmark.bench", "batchrec.training.train"} <= policies.keys()
    assert {policy for seen in policies.values() for policy in seen} == {"PASSIVE"}
    assert all(policies.values())
