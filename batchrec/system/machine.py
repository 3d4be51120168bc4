"""The resources of the machine: CPU cores that this process may use, and NVIDIA GPUs."""

import os
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path


def n_cores(root: Path = Path("/")) -> int:
    """Return the number of CPU cores that this process may use: its affinity, or a container's quota if that is less.

    A quota is rounded down, to a minimum of 1: with more threads than it covers, all of them wait once it is used up.
    root: the folder that contains /proc and /sys.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root), default=float(allowed))
    return max(1, min(allowed, int(quota)))


def has_nvidia_device(root: Path = Path("/")) -> bool:
    """Return whether the machine has an NVIDIA GPU: its driver makes device files, or a library on Windows and WSL.

    root: the folder that contains /dev and /usr.
    """
    if os.name == "nt":
        return find_library("nvcuda") is not None
    devices = root / "dev"
    is_passed_through = (root / "usr/lib/wsl/lib/libcuda.so.1").exists()
    return is_passed_through or (devices / "nvidiactl").exists() or any(devices.glob("nvidia[0-9]*"))


def avoid_spinning() -> None:
    """Let OpenMP's threads sleep while they wait, unless the environment says otherwise.

    If other programs need the cores too, a spinning thread may hold the core that the thread it waits for needs. OpenMP
    reads the environment once, when the first library that uses it loads.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of the control groups of this process and of their parents.

    See the kernel's admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc (cpu.cfs_quota_us).
    """
    for is_v2, folders in _groups(root):
        for folder in folders:
            if is_v2:
                words = _read(folder / "cpu.max").split()
            else:
                words = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            # "max" in v2 and -1 in v1 mean no quota.
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
                yield int(words[0]) / int(words[1])


def _groups(root: Path) -> Iterator[tuple[bool, list[Path]]]:
    """Yield each CPU control group of the process: whether it is of v2, and the folders of the group and its parents.

    In a container the mount's root may be the group itself, while the path is that of the group on the host.
    """
    paths: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # The line of v2 names no controllers.
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount, _, file_system = line.partition(" - ")
        kind, _, options = file_system.split(" ", 2)
        controller = {"cgroup2": "", "cgroup": "cpu"}.get(kind)
        if controller not in paths or (kind == "cgroup" and controller not in options.split(",")):
            continue
        mounted, mount_point = mount.split(" ")[3:5]
        top = root / mount_point.lstrip("/")
        below = os.path.relpath(paths[controller], mounted)
        folder = top if below.startswith("..") else top / below
        yield kind == "cgroup2", [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:  # another operating system, or no such limit
        return ""
