"""What the machine has, and what it lets this process use."""

import os
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path


def n_cores(root: Path = Path("/")) -> int:
    """Count the CPU cores that this process may use: those it may run on, or a container's quota if that is less.

    A quota is rounded down, to 1 at least: a thread more than it covers makes all of them wait when it is used up.
    root: where /proc and /sys lie.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root), default=float(allowed))
    return max(1, min(allowed, int(quota)))


def has_nvidia_device(root: Path = Path("/")) -> bool:
    """Return whether there is an NVIDIA GPU: its driver makes device files, or brings Windows (or WSL) its library.

    root: where /dev and /usr lie.
    """
    if os.name == "nt":
        return find_library("nvcuda") is not None
    devices = root / "dev"
    is_passed_through = (root / "usr/lib/wsl/lib/libcuda.so.1").exists()
    return is_passed_through or (devices / "nvidiactl").exists() or any(devices.glob("nvidia[0-9]*"))


def avoid_spinning() -> None:
    """Have OpenMP's threads sleep while they wait, if the environment does not say otherwise.

    Spinning threads take the core from the one that they wait for when other programs need it too. OpenMP reads the
    environment once, when the first library that uses it loads.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _quotas(root: Path) -> Iterator[float]:
    """Read the quotas, in cores, of the control groups that this process is in, their parents' among them.

    See the kernel's admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc (cpu.cfs_quota_us).
    """
    for is_v2, folders in _groups(root):
        for folder in folders:
            if is_v2:
                words = _read(folder / "cpu.max").split()
            else:
                words = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            # v2 has the word "max", and v1 -1, for no quota.
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
                yield int(words[0]) / int(words[1])


def _groups(root: Path) -> Iterator[tuple[bool, list[Path]]]:
    """Find the folders of the process's CPU control groups: whether it is a v2 hierarchy, then its own and its parents.

    A container may see its group as the root of the mount, under the path that the group has on the host.
    """
    paths: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # v2 names no controllers.
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
    except OSError:  # another system, or no such limit
        return ""
