"""The Spark session of an engine, and its errors as one line."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchrec.engines.shipping import missing_package
from batchrec.errors import ConfigError, EngineError


@contextmanager
def spark_session() -> Iterator[Any]:
    """Yield the active session, or the one that spark-submit and Spark's own configuration describe.

    A session that is made here ends with the block. Raises ConfigError if pyspark is not installed or the session is of
    Spark Connect, EngineError if the cluster cannot be reached or fails.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise missing_package("spark", "pyspark", error) from error
    if os.environ.get("SPARK_REMOTE"):
        raise ConfigError("--engine spark: SPARK_REMOTE is set, but Spark Connect has no broadcasts. Use spark-submit")
    # The workers of a session on this machine run in this environment.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        active = SparkSession.getActiveSession()
        spark = active or (
            SparkSession.builder.appName("batchrec").config("spark.ui.showConsoleProgress", "false").getOrCreate()
        )
        try:
            if active is None:
                spark.sparkContext.setLogLevel("ERROR")
            yield spark
        finally:
            if active is None:
                spark.stop()
    except (PySparkException, Py4JError) as error:
        raise EngineError(f"--engine spark: the cluster failed: {_cause_of(error):.400}") from error


def _cause_of(error: Exception) -> str:
    """Return the line of an error that names its cause: without the stack traces of Java and Python."""
    java = getattr(error, "java_exception", None)
    lines = str(error if java is None else java.getMessage()).strip().splitlines() or [repr(error)]
    raised = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception): ", line)]
    return raised[-1] if raised else lines[0]
