"""The cores that a process may use, from control groups as the kernel writes them, below a root of the test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchrec.system.machine import has_nvidia_device, n_cores
from batchrec.tables.queries import connect

V1_MOUNT = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V2_MOUNT = "31 23 0:28 {root} /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def write(root: Path, files: dict[str, str]) -> None:
    for name, contents in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(contents + "\n", encoding="utf-8")


def v2(root: Path, group: str, limits: dict[str, str], mounted: str = "/") -> int:
    """Count the cores of a process in a v2 group; limits: group below the mount -> cpu.max."""
    write(root, {"proc/self/cgroup": f"0::{group}", "proc/self/mountinfo": V2_MOUNT.format(root=mounted)})
    write(root, {f"sys/fs/cgroup/{name}/cpu.max": limit for name, limit in limits.items()})
    return n_cores(root)


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("100000 50000", 2),
        ("max 100000", 16),
        ("6400000 100000", 16),
    ],
)
def test_a_quota_is_rounded_down_to_a_minimum_of_one(limit: str, cores: int, tmp_path: Path) -> None:
    assert v2(tmp_path, "/", {"": limit}) == cores


def test_the_smallest_quota_of_a_group_and_its_parents_applies(tmp_path: Path) -> None:
    limits = {"": "max 100000", "pods": "300000 100000", "pods/one": "800000 100000", "pods/one/job": "max 100000"}
    assert v2(tmp_path, "/pods/one/job", limits) == 3


def test_a_group_of_others_does_not_count(tmp_path: Path) -> None:
    assert v2(tmp_path, "/mine", {"mine": "500000 100000", "theirs": "100000 100000"}) == 5


def test_a_container_that_sees_the_hosts_path_finds_its_group_at_the_mount(tmp_path: Path) -> None:
    assert v2(tmp_path / "a", "/docker/4f", {"": "300000 100000"}, mounted="/docker/4f") == 3
    assert v2(tmp_path / "b", "/docker/4f/x", {"x": "200000 100000"}, mounted="/docker/4f") == 2
    assert v2(tmp_path / "c", "/../../elsewhere", {"": "300000 100000"}) == 3
    assert v2(tmp_path / "d", "/", {"": "300000 100000"}, mounted="/docker/4f") == 3


@pytest.mark.parametrize(("quota", "cores"), [("350000", 3), ("-1", 16), ("20000", 1)])
def test_quotas_of_cgroup_v1_apply(quota: str, cores: int, tmp_path: Path) -> None:
    group = "sys/fs/cgroup/cpu,cpuacct/jobs"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/big\n2:cpu,cpuacct:/jobs\n0::/",
            "proc/self/mountinfo": V1_MOUNT.format(root="/")
            + "\n34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
            + "\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
            f"{group}/cpu.cfs_quota_us": quota,
            f"{group}/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpuset/cpu.max": "100000 100000",
        },
    )
    assert n_cores(tmp_path) == cores


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert n_cores(tmp_path) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert n_cores(tmp_path) == 1
    assert v2(tmp_path, "/", {"": "400000 100000"}) == 1


@pytest.mark.parametrize("limit", ["", "100000", "many 100000", "100000 0"])
def test_a_malformed_limit_is_ignored(limit: str, tmp_path: Path) -> None:
    assert v2(tmp_path, "/", {"": limit}) == 16


@pytest.mark.usefixtures("own_duckdb")
def test_queries_use_the_given_threads_or_one_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.tables.queries.n_cores", lambda: 3)
    for given, expected in ((None, 3), (2, 2)):
        with connect(threads=given) as con:
            assert con.sql("select current_setting('threads')").fetchall() == [(expected,)]


@pytest.mark.parametrize(
    ("file", "is_gpu"),
    [("dev/nvidia0", True), ("dev/nvidiactl", True), ("usr/lib/wsl/lib/libcuda.so.1", True), ("dev/null", False)],
)
def test_an_nvidia_gpu_is_detected_by_its_drivers_files(file: str, is_gpu: bool, tmp_path: Path) -> None:
    write(tmp_path, {file: ""})
    assert has_nvidia_device(tmp_path) is is_gpu


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_training_does_not_spin_unless_the_environment_says_so(given: str | None, policy: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    # Before torch is loaded: its OpenMP reads the environment when it loads.
    program = """
import ctypes, os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            libc = ctypes.CDLL(None)
            libc.getenv.restype = ctypes.c_char_p
            print(libc.getenv(b"OMP_WAIT_POLICY").decode())
            os._exit(0)
sys.meta_path.insert(0, Finder())
import batchrec.training.train
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == policy
