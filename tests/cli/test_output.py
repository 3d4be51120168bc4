"""The output of a command that nobody reads any more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_has_seen_enough_changes_no_exit_code(options: tuple[str, ...], tmp_path: Path) -> None:
    unread, written = os.pipe()
    os.close(unread)
    command = [sys.executable, "-m", "batchrec", "nights", *options]
    done = subprocess.run(command, check=False, stdout=written, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(written)
    assert (done.returncode, done.stderr) == (0, "")
