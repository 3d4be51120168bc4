"""The process that has imported batchrec, and from which tests fork others: to import torch takes seconds."""

import multiprocessing
import os
from multiprocessing import forkserver

from tests.support.pages import ROOT

CONTEXT = multiprocessing.get_context("forkserver")
# Prefix of the variables that are removed, so that the environment of the tests sets no option of a job.
_OURS = "BATCHREC_"


def start_server() -> None:
    """Start the process that the others are forked from, if it is not running yet; it uses one thread."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(_OURS)]:
        del os.environ[name]
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    try:
        CONTEXT.set_forkserver_preload(["tests.support.preloaded"])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
