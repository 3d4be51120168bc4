"""doctor: what this machine has for the jobs, and what it lacks for a GPU.

What is diagnosed may be broken or not there, so each package is imported where it is looked at.
"""

import ctypes
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from batchrec.errors import ModelError
from batchrec.system.machine import n_cores

_CUDA_PLATFORMS = {("Linux", "x86_64"), ("Windows", "AMD64")}  # as in pyproject.toml
_INSTALL = "pip install 'batchrec[cuda]'"
_CONTAINER = "start a container with the GPU: docker run --gpus all"
_REINSTALL = f"pip uninstall --yes onnxruntime onnxruntime-gpu, then {_INSTALL}"


@dataclass(frozen=True)
class Problem:
    """What is missing or wrong, and what to do about it, a command to run where there is one."""

    what: str
    to_do: str


@dataclass(frozen=True)
class DoctorReport:
    """Versions (None: not installed), what there is of a GPU, and what is missing: the worst problem first.

    onnxruntime: version of each of the distributions that install it. driver_runs_cuda: the newest that the NVIDIA
    driver runs, None without a driver. gpus: name and memory; None where torch cannot tell. Both lists of libraries are
    empty where onnxruntime is built without CUDA.
    """

    batchrec: str | None
    python: str
    platform: str
    torch: str | None
    duckdb: str | None
    pyarrow: str | None
    onnx: str | None
    onnxruntime: dict[str, str]
    cpu_cores: int
    providers_listed: list[str]
    providers_started: list[str]
    driver_runs_cuda: str | None
    gpus: list[str] | None
    cuda_libraries_found: list[str]
    cuda_libraries_missing: list[str]
    problems: list[Problem]
    score_runs_on: str


@dataclass(frozen=True)
class _Trial:
    """How onnxruntime fared with CUDA asked for; nothing started where it does not work at all.

    cuda: the version of CUDA it is built for, empty without. why_not: why CUDA did not start, in its own words.
    failure: why it does not work, or did not run what it had opened.
    """

    listed: list[str]
    started: list[str]
    lists_cuda: bool = False
    starts_cuda: bool = False
    cuda: str = ""
    why_not: str = ""
    failure: str = ""


def diagnose() -> DoctorReport:
    """Look at this machine; whatever is broken or missing is in the report, and raises no error."""
    # Before torch, which loads CUDA libraries of its own: score runs without it.
    trial = _try_onnxruntime()
    loads = {name: _loads(name) for name in _cuda_libraries(trial.cuda)}
    missing = [name for name, is_found in loads.items() if not is_found]
    driver = _driver_cuda()
    gpus, problems_of_torch = _ask_torch(driver)
    distributions = {name: found for name in ("onnxruntime", "onnxruntime-gpu") if (found := _version(name))}
    problems = list(_problems(trial, driver, missing))
    runs_on = _score_runs_on(trial, problems)
    if len(distributions) > 1:
        both = "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other"
        problems.append(Problem(both, _REINSTALL))
    return DoctorReport(
        batchrec=_version("batchrec"),
        python=platform.python_version(),
        platform=platform.platform(),
        torch=_version("torch"),
        duckdb=_version("duckdb"),
        pyarrow=_version("pyarrow"),
        onnx=_version("onnx"),
        onnxruntime=distributions,
        cpu_cores=n_cores(),
        providers_listed=trial.listed,
        providers_started=trial.started,
        driver_runs_cuda=driver,
        gpus=gpus,
        cuda_libraries_found=[name for name, is_found in loads.items() if is_found],
        cuda_libraries_missing=missing,
        problems=problems + problems_of_torch,
        score_runs_on=runs_on,
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _try_onnxruntime() -> _Trial:
    """Open a graph as score does, and run it: onnxruntime lists CUDA even where no GPU is."""
    try:
        import numpy as np
        import onnxruntime as ort

        from batchrec.model.ranker import CUDA, open_session

        session, why_not = open_session(_small_graph(), CUDA)
    except (ImportError, AttributeError, OSError, ModelError) as error:  # AttributeError: a package half overwritten
        return _Trial([], [], failure=_first_line(error))
    session.disable_fallback()  # score's runs have none
    failure = ""
    try:
        session.run(None, {"x": np.ones((2, 2), np.float32)})
    except Exception as error:  # onnxruntime's errors have no common base of their own
        failure = _first_line(error)
    listed, started = ort.get_available_providers(), session.get_providers()
    return _Trial(listed, started, CUDA in listed, CUDA in started, ort.cuda_version, why_not, failure)


def _small_graph() -> bytes:
    """Make a graph of operators that the encoder has too, for which CUDA needs its libraries."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y"))
    nodes = [helper.make_node("MatMul", ["x", "x"], ["product"]), helper.make_node("Softmax", ["product"], ["y"])]
    graph = helper.make_graph(nodes, "doctor", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    contents: bytes = model.SerializeToString()
    return contents


def _cuda_libraries(cuda: str) -> list[str]:
    """Name what onnxruntime-gpu loads: what its CUDA provider is linked with, then what it opens when it needs it."""
    major = cuda.partition(".")[0]
    if not major:
        return []
    cufft = 12 if int(major) >= 13 else 11
    if platform.system() == "Windows":
        names = (f"cublasLt64_{major}", f"cublas64_{major}", f"cudart64_{major}", "cudnn64_9", f"cufft64_{cufft}")
        return [f"{name}.dll" for name in names]
    linked = [f"libcublasLt.so.{major}", f"libcublas.so.{major}", "libcurand.so.10", f"libcudart.so.{major}"]
    return [*linked, "libcudnn.so.9", f"libcufft.so.{cufft}", f"libnvrtc.so.{major}"]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _driver_cuda() -> str | None:
    """Ask the NVIDIA driver for the newest CUDA that it runs; None without a driver."""
    try:
        driver = ctypes.CDLL(_driver_library())
    except OSError:
        return None
    number = ctypes.c_int()
    is_stub = driver.cuDriverGetVersion(ctypes.byref(number)) != 0
    return None if is_stub else f"{number.value // 1000}.{number.value % 1000 // 10}"


def _driver_library() -> str:
    return "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"


def _ask_torch(driver: str | None) -> tuple[list[str] | None, list[Problem]]:
    """Ask torch for the GPUs' names and memory: None where there is a driver, and torch cannot tell."""
    try:
        import torch
    except (ImportError, OSError) as error:
        what = f"torch cannot be imported: {_first_line(error)}"
        return None if driver else [], [Problem(what, "pip install torch, to train on this machine: score needs none")]
    if driver is None:
        return [], []
    if torch.version.cuda is None:
        what = "torch is built without CUDA: train runs on the CPU"
        return None, [Problem(what, "install torch for CUDA, by the command that pytorch.org gives")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in devices], []


def _problems(trial: _Trial, driver: str | None, missing: list[str]) -> Iterator[Problem]:
    """Say what keeps score from a GPU, in the order of mending."""
    here = platform.system(), platform.machine()
    if not trial.started:
        yield Problem(f"onnxruntime does not work: {trial.failure}", _REINSTALL)
    elif trial.starts_cuda:
        if trial.failure:
            to_do = f"pass --device cpu, or try {_INSTALL}. CUDA 13 knows no GPU older than NVIDIA's Turing"
            yield Problem(f"the GPU starts, and fails at its work: {trial.failure}", to_do)
    elif here not in _CUDA_PLATFORMS:
        to_do = "score on Linux x86_64 or Windows AMD64 for a GPU"
        yield Problem(f"onnxruntime has no build with CUDA for {' '.join(here)}", to_do)
    elif not trial.lists_cuda:
        yield Problem("onnxruntime is built without CUDA", _REINSTALL)
    else:
        yield from _problems_of_cuda(trial, driver, missing)


def _problems_of_cuda(trial: _Trial, driver: str | None, missing: list[str]) -> Iterator[Problem]:
    is_old = driver is not None and int(driver.partition(".")[0]) < int(trial.cuda.partition(".")[0] or 0)
    if driver is None:
        to_do = f"install the driver of your NVIDIA GPU, which brings {_driver_library()}; {_CONTAINER}"
        yield Problem("no NVIDIA driver", to_do)
    if is_old:
        what = f"the NVIDIA driver is too old: it runs CUDA {driver}, and onnxruntime is built for {trial.cuda}"
        yield Problem(what, "update the driver")
    if missing:
        yield Problem(f"CUDA libraries are missing: {', '.join(missing)}", _INSTALL)
    if driver is not None and not is_old and not missing:
        yield Problem(trial.why_not, f"see whether nvidia-smi lists a GPU; {_CONTAINER}")


def _score_runs_on(trial: _Trial, problems: list[Problem]) -> str:
    if not trial.started:
        return "nothing (onnxruntime does not work)"
    if trial.starts_cuda:
        return "the GPU, and fails there" if trial.failure else "the GPU"
    return f"the CPU ({problems[0].what})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
