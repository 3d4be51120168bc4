import ctypes
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest
import torch

from batchrec.doctor import DoctorReport, diagnose
from batchrec.model.ranker import CPU, CUDA
from tests.support.models import run_cli
from tests.support.params import slow_except

with_cuda_build = pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="no build with CUDA")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")

LIBRARIES = [
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
    "libcudart.so.13",
    "libcudnn.so.9",
    "libcufft.so.12",
    "libnvrtc.so.13",
]


class Machine:
    """This machine, with other libraries and another build of onnxruntime."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.on("Linux", "x86_64")
        monkeypatch.setattr(ort, "cuda_version", "13.0")

    def on(self, system: str, machine: str) -> None:
        self.monkeypatch.setattr("platform.system", lambda: system)
        self.monkeypatch.setattr("platform.machine", lambda: machine)

    def has(self, *libraries: str, driver: int | None) -> None:
        """Install only these CUDA libraries, and a driver for a CUDA version: 13000 for 13.0."""

        def driver_version(number: Any) -> int:
            number._obj.value = driver
            return 0

        def load(path: str) -> SimpleNamespace:
            name = Path(path).name
            if name not in libraries and (driver is None or name not in ("libcuda.so.1", "nvcuda.dll")):
                raise OSError(f"{name}: cannot open shared object file")
            return SimpleNamespace(cuDriverGetVersion=driver_version)

        self.monkeypatch.setattr(ctypes, "CDLL", load)

    def lists(self, *providers: str) -> None:
        self.monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))

    def starts_cuda(self, failure: str = "") -> None:
        """Let onnxruntime report that the GPU has started; a run raises `failure`, if set."""

        class Session(ort.InferenceSession):  # type: ignore[misc]
            def __init__(self, graph: bytes, options: ort.SessionOptions, providers: list[Any]) -> None:
                super().__init__(graph, options, providers=[CPU])
                self.asked_for = [name if isinstance(name, str) else name[0] for name in providers]

            def get_providers(self) -> list[str]:
                return self.asked_for

            def run(self, *arguments: Any) -> Any:
                if failure:
                    raise RuntimeError(failure)
                return super().run(*arguments)

        self.monkeypatch.setattr(ort, "InferenceSession", Session)
        self.lists(CUDA, CPU)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def fixes(report: DoctorReport) -> dict[str, str]:
    """Return what to do about each problem, except for torch's, which depends on this machine."""
    return {problem.what: problem.to_do for problem in report.problems if not problem.what.startswith("torch")}


def test_versions_and_cores_are_those_of_this_environment() -> None:
    report = diagnose()
    for name in ("torch", "duckdb", "pyarrow", "onnx"):
        assert getattr(report, name) == version(name)
    assert report.onnxruntime
    assert all(report.onnxruntime[name] == version(name) for name in report.onnxruntime)
    assert report.python == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= report.cpu_cores <= (os.cpu_count() or 1)
    assert report.providers_listed == ort.get_available_providers()


@without_gpu
@with_cuda_build
def test_without_a_gpu_cuda_is_listed_and_does_not_start() -> None:
    report = diagnose()
    assert CUDA in report.providers_listed
    assert report.providers_started == [CPU]
    assert report.score_runs_on == f"the CPU ({report.problems[0].what})"
    assert not report.gpus


@without_gpu
def test_the_last_line_of_the_printed_report_is_the_device_of_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("doctor") == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[-1] == f"score runs on: {diagnose().score_runs_on}"
    assert ["onnx", version("onnx")] in [line.split() for line in lines]
    for problem in diagnose().problems:
        assert lines[lines.index(problem.what) + 1] == f"  -> {problem.to_do}"


def test_json_is_the_whole_report_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("doctor", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert set(json.loads(line)) == set(DoctorReport.__dataclass_fields__)


@with_cuda_build
@without_gpu
def test_without_a_driver_and_libraries_both_are_problems(machine: Machine) -> None:
    machine.has(driver=None)
    report = diagnose()
    assert report.driver_runs_cuda is None
    assert report.cuda_libraries_missing == LIBRARIES
    of_driver, of_libraries = fixes(report).items()
    assert of_driver[0] == "no NVIDIA driver"
    assert "libcuda.so.1" in of_driver[1]
    assert of_libraries == (f"CUDA libraries are missing: {', '.join(LIBRARIES)}", "pip install 'batchrec[cuda]'")
    assert report.score_runs_on == "the CPU (no NVIDIA driver)"


@with_cuda_build
@without_gpu
def test_one_missing_library_is_named(machine: Machine) -> None:
    machine.has(*LIBRARIES[1:], driver=13000)
    report = diagnose()
    assert report.driver_runs_cuda == "13.0"
    assert report.cuda_libraries_found == LIBRARIES[1:]
    assert fixes(report) == {"CUDA libraries are missing: libcublasLt.so.13": "pip install 'batchrec[cuda]'"}
    assert report.score_runs_on == "the CPU (CUDA libraries are missing: libcublasLt.so.13)"


@with_cuda_build
@without_gpu
def test_a_driver_older_than_onnxruntimes_cuda_is_named(machine: Machine) -> None:
    machine.has(*LIBRARIES, driver=12080)
    report = diagnose()
    what = "the NVIDIA driver is too old: it runs CUDA 12.8, but onnxruntime is built for 13.0"
    assert fixes(report) == {what: "update the driver"}
    assert report.score_runs_on == f"the CPU ({what})"


@pytest.mark.usefixtures("no_device")
def test_if_only_the_gpu_is_missing_onnxruntimes_reason_is_quoted(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.has(*LIBRARIES, driver=13010)
    assert run_cli("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["driver_runs_cuda"] == "13.1"
    assert "CUDA failure 100" in report["problems"][0]["what"]
    assert "nvidia-smi" in report["problems"][0]["to_do"]
    assert "CUDA failure 100" in report["score_runs_on"]


def test_a_working_gpu_is_no_problem(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.has(*LIBRARIES[:5], driver=13000)
    machine.starts_cuda()
    report = diagnose()
    assert report.providers_started == [CUDA, CPU]
    assert fixes(report) == {}
    assert run_cli("doctor") == 0
    assert capsys.readouterr().out.endswith("\nscore runs on: the GPU\n")


def test_a_gpu_that_starts_but_fails_to_run_is_a_problem(machine: Machine) -> None:
    machine.has(*LIBRARIES, driver=13000)
    machine.starts_cuda(failure="no kernel image is available\nat some line")
    report = diagnose()
    assert report.score_runs_on == "the GPU, where it fails"
    ((what, to_do),) = fixes(report).items()
    assert what.endswith(": no kernel image is available")
    assert "--device cpu" in to_do


def test_a_build_without_cuda_must_be_replaced(machine: Machine) -> None:
    machine.lists(CPU)
    machine.monkeypatch.setattr(ort, "cuda_version", "")
    report = diagnose()
    assert report.cuda_libraries_found == report.cuda_libraries_missing == []
    assert report.score_runs_on == "the CPU (onnxruntime is built without CUDA)"
    assert "pip uninstall" in fixes(report)["onnxruntime is built without CUDA"]


def test_a_platform_without_a_cuda_build_is_named(machine: Machine) -> None:
    machine.on("Darwin", "arm64")
    machine.lists(CPU)
    report = diagnose()
    assert report.score_runs_on == "the CPU (onnxruntime has no build with CUDA for Darwin arm64)"
    assert "pip" not in "".join(fixes(report).values())


def test_windows_has_its_own_libraries(machine: Machine) -> None:
    machine.on("Windows", "AMD64")
    machine.has("cublas64_13.dll", driver=13000)
    machine.starts_cuda()
    machine.monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    report = diagnose()
    assert report.driver_runs_cuda == "13.0"
    assert report.cuda_libraries_found == ["cublas64_13.dll"]
    assert "cudnn64_9.dll" in report.cuda_libraries_missing


@pytest.mark.parametrize("names", [("onnxruntime", "onnxruntime-gpu"), ("onnxruntime-gpu",)])
def test_two_distributions_of_onnxruntime_are_a_problem(
    names: tuple[str, ...], tmp_path: Path, machine: Machine
) -> None:
    for name in names:
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n", encoding="utf-8")
    machine.monkeypatch.setattr(sys, "path", [str(tmp_path)])
    machine.starts_cuda()
    report = diagnose()
    assert report.onnxruntime == dict.fromkeys(names, "9.9")
    assert report.torch is None
    both = "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other"
    assert list(fixes(report)) == ([both] if len(names) == 2 else [])
    assert report.score_runs_on == "the GPU"


def test_missing_torch_is_a_problem_of_torch_only(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.has(*LIBRARIES, driver=13000)
    machine.starts_cuda()
    machine.monkeypatch.setitem(sys.modules, "torch", None)
    assert run_cli("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["gpus", "torch", "cannot", "tell"] in [line.split() for line in lines]
    assert any(line.startswith("torch cannot be imported") for line in lines)
    assert lines[-1] == "score runs on: the GPU"


def test_torch_without_cuda_is_a_problem_if_there_is_a_driver(machine: Machine) -> None:
    machine.has(driver=13000)
    machine.monkeypatch.setattr("torch.version.cuda", None)
    report = diagnose()
    assert report.gpus is None
    assert "torch is built without CUDA: train runs on the CPU" in [problem.what for problem in report.problems]


def test_gpus_are_listed_with_their_memory(machine: Machine) -> None:
    machine.has(driver=13000)
    machine.monkeypatch.setattr("torch.version.cuda", "13.0")
    machine.monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    device = SimpleNamespace(name="NVIDIA L4", total_memory=24 * 2**30)
    machine.monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: device)
    assert diagnose().gpus == ["NVIDIA L4, 24 GiB"] * 2


@pytest.mark.parametrize("module", slow_except(["onnxruntime", "onnx", "torch"], "torch"))
def test_a_package_that_cannot_be_imported_is_a_problem(module: str) -> None:
    program = f"""
import sys
sys.modules[{module!r}] = None
from batchrec.cli import run
sys.exit(run(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = f"import of {module} halted"
    assert said in done.stdout
    assert done.stdout.splitlines()[-1].startswith("score runs on: nothing") == (module != "torch")
