"""doctor: check this machine's versions, GPU and CUDA libraries, and which device score will use.

A package that is checked may be broken or missing, so each is imported in the function that checks it.
"""

import ctypes
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from batchrec.errors import ModelError
from batchrec.system.machine import n_cores
from batchrec.system.versions import version_of

_CUDA_PLATFORMS = {("Linux", "x86_64"), ("Windows", "AMD64")}  # as in pyproject.toml
_INSTALL = "pip install 'batchrec[cuda]'"
_CONTAINER = "docker run --gpus all"
_REINSTALL = f"pip uninstall --yes onnxruntime onnxruntime-gpu, then {_INSTALL}"


@dataclass(frozen=True)
class Problem:
    """A missing or broken part of the machine, and what to do about it: a command to run, if one exists."""

    what: str
    to_do: str


@dataclass(frozen=True)
class DoctorReport:
    """Versions (None: not installed), GPUs, CUDA libraries, and problems, the worst first.

    onnxruntime: version of each installed distribution of it. driver_runs_cuda: the newest CUDA version that the NVIDIA
    driver runs; None without a driver. gpus: name and memory of each; None if torch cannot tell. Both lists of
    libraries are empty if onnxruntime is built without CUDA.
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
    """The result of opening and running a graph with CUDA requested; `started` is empty if onnxruntime does not work.

    cuda: the CUDA version that onnxruntime is built for; empty without CUDA. why_not: onnxruntime's reason for not
    starting CUDA. failure: the error of the import, of opening the graph, or of running it.
    """

    listed: list[str]
    started: list[str]
    lists_cuda: bool = False
    starts_cuda: bool = False
    cuda: str = ""
    why_not: str = ""
    failure: str = ""


def diagnose() -> DoctorReport:
    """Check this machine. Broken and missing parts are listed in the report; they raise no error."""
    # Before torch, which loads its own CUDA libraries: score runs without torch.
    trial = _try_onnxruntime()
    loads = {name: _loads(name) for name in _cuda_libraries(trial.cuda)}
    missing = [name for name, is_loaded in loads.items() if not is_loaded]
    driver = _driver_cuda()
    gpus, problems_of_torch = _ask_torch(driver)
    distributions = {name: installed for name in ("onnxruntime", "onnxruntime-gpu") if (installed := version_of(name))}
    problems = list(_problems(trial, driver, missing))
    runs_on = _score_runs_on(trial, problems)
    if len(distributions) > 1:
        both = "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other"
        problems.append(Problem(both, _REINSTALL))
    return DoctorReport(
        batchrec=version_of("batchrec"),
        python=platform.python_version(),
        platform=platform.platform(),
        torch=version_of("torch"),
        duckdb=version_of("duckdb"),
        pyarrow=version_of("pyarrow"),
        onnx=version_of("onnx"),
        onnxruntime=distributions,
        cpu_cores=n_cores(),
        providers_listed=trial.listed,
        providers_started=trial.started,
        driver_runs_cuda=driver,
        gpus=gpus,
        cuda_libraries_found=[name for name, is_loaded in loads.items() if is_loaded],
        cuda_libraries_missing=missing,
        problems=problems + problems_of_torch,
        score_runs_on=runs_on,
    )


def _try_onnxruntime() -> _Trial:
    """Open a graph as score does, and run it: onnxruntime lists CUDA even on a machine without a GPU."""
    try:
        import numpy as np
        import onnxruntime as ort

        from batchrec.model.graph import Graph
        from batchrec.model.ranker import CUDA, open_session

        session, why_not = open_session(Graph(_small_graph()), CUDA)
    except (ImportError, AttributeError, OSError, ModelError) as error:  # AttributeError: a package partly overwritten
        return _Trial([], [], failure=_first_line(error))
    session.disable_fallback()  # as in score
    failure = ""
    try:
        session.run(None, {"x": np.ones((2, 2), np.float32)})
    except Exception as error:  # onnxruntime's errors have no common base class
        failure = _first_line(error)
    listed, started = ort.get_available_providers(), session.get_providers()
    return _Trial(listed, started, CUDA in listed, CUDA in started, ort.cuda_version, why_not, failure)


def _small_graph() -> bytes:
    """Return a graph of operators that the encoder has too, and that need the CUDA libraries."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y"))
    nodes = [helper.make_node("MatMul", ["x", "x"], ["product"]), helper.make_node("Softmax", ["product"], ["y"])]
    graph = helper.make_graph(nodes, "doctor", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    contents: bytes = model.SerializeToString()
    return contents


def _cuda_libraries(cuda: str) -> list[str]:
    """Return the libraries that onnxruntime-gpu loads: those its CUDA provider links, then those it opens on demand."""
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
    """Return the newest CUDA version that the NVIDIA driver runs; None without a driver."""
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
    """Return names and memory of the GPUs (None: a driver exists, but torch cannot tell), and torch's problems."""
    try:
        import torch
    except (ImportError, OSError) as error:
        what = f"torch cannot be imported: {_first_line(error)}"
        return None if driver else [], [
            Problem(what, "pip install torch, to train on this machine; score does not need it")
        ]
    if driver is None:
        return [], []
    if torch.version.cuda is None:
        what = "torch is built without CUDA: train runs on the CPU"
        return None, [Problem(what, "install torch for CUDA with the command from pytorch.org")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a driver that is too old
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in devices], []


def _problems(trial: _Trial, driver: str | None, missing: list[str]) -> Iterator[Problem]:
    """Yield what keeps score from using a GPU, in the order in which to fix it."""
    here = platform.system(), platform.machine()
    if not trial.started:
        yield Problem(f"onnxruntime does not work: {trial.failure}", _REINSTALL)
    elif trial.starts_cuda:
        if trial.failure:
            to_do = f"pass --device cpu, or try {_INSTALL}. CUDA 13 supports no GPU older than NVIDIA's Turing"
            yield Problem(f"CUDA starts but inference fails: {trial.failure}", to_do)
    elif here not in _CUDA_PLATFORMS:
        to_do = "run score on Linux x86_64 or Windows AMD64 to use a GPU"
        yield Problem(f"onnxruntime has no build with CUDA for {' '.join(here)}", to_do)
    elif not trial.lists_cuda:
        yield Problem("onnxruntime is built without CUDA", _REINSTALL)
    else:
        yield from _problems_of_cuda(trial, driver, missing)


def _problems_of_cuda(trial: _Trial, driver: str | None, missing: list[str]) -> Iterator[Problem]:
    is_old = driver is not None and int(driver.partition(".")[0]) < int(trial.cuda.partition(".")[0] or 0)
    if driver is None:
        to_do = (
            f"install the driver of your NVIDIA GPU, which includes {_driver_library()}. In a container: {_CONTAINER}"
        )
        yield Problem("no NVIDIA driver", to_do)
    if is_old:
        what = f"the NVIDIA driver is too old: it runs CUDA {driver}, but onnxruntime is built for {trial.cuda}"
        yield Problem(what, "update the driver")
    if missing:
        yield Problem(f"CUDA libraries are missing: {', '.join(missing)}", _INSTALL)
    if driver is not None and not is_old and not missing:
        yield Problem(trial.why_not, f"check that nvidia-smi lists a GPU. In a container: {_CONTAINER}")


def _score_runs_on(trial: _Trial, problems: list[Problem]) -> str:
    if not trial.started:
        return "nothing (onnxruntime does not work)"
    if trial.starts_cuda:
        return "the GPU, where it fails" if trial.failure else "the GPU"
    return f"the CPU ({problems[0].what})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
