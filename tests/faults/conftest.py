import pytest

# Before they are imported: what they assert is explained too.
pytest.register_assert_rewrite(
    "tests.faults.children", "tests.faults.kills", "tests.faults.reader", "tests.faults.shop"
)

from tests.faults import counts  # noqa: E402


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Show what was done to the nights."""
    lines = counts.lines()
    if lines:
        title = "faults, and nothing was lost" if exitstatus == pytest.ExitCode.OK else "faults"
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)
