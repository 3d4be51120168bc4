"""Clusters on this machine that the warehouse tests start and stop, each with two workers: Ray, and Spark."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_MISSING = "the warehouse extra is not installed: run make test-warehouse"
_ROOT = str(Path(__file__).parents[2])


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Connect this process to a new Ray cluster; yield its address."""
    ray = pytest.importorskip("ray", reason=_MISSING)
    with _workers_find_the_tests():
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        context = ray.init(
            num_cpus=2,
            object_store_memory=200 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            yield str(context.address_info["gcs_address"])
        finally:
            ray.shutdown()


@contextmanager
def spark_cluster() -> Iterator[Any]:
    """Make a Spark session on a cluster of two executors the active one."""
    sql = pytest.importorskip("pyspark.sql", reason=_MISSING)
    with _workers_find_the_tests():
        session = (
            sql.SparkSession.builder.master("local-cluster[2,1,700]")
            .config("spark.driver.memory", "1g")
            .config("spark.executor.memory", "700m")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .getOrCreate()
        )
        session.sparkContext.setLogLevel("OFF")
        try:
            yield session
        finally:
            session.stop()


@contextmanager
def _workers_find_the_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", _ROOT, prepend=os.pathsep)
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        yield
