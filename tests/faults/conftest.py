from typing import Any

import pytest

# Before they are imported, so that pytest explains their assertions too.
pytest.register_assert_rewrite(
    "tests.faults.children", "tests.faults.kills", "tests.faults.reader", "tests.faults.shop"
)

from tests.faults import counts  # noqa: E402

_COUNTS = "counts of faults"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a worker of pytest-xdist that has ended."""
    for name, number in getattr(node, "workeroutput", {}).get(_COUNTS, {}).items():
        counts.add(name, number)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_COUNTS] = counts.by_name()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Print the faults that the nights have survived."""
    lines = counts.lines()
    if lines:
        title = "faults, without a loss" if exitstatus == pytest.ExitCode.OK else "faults"
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)
