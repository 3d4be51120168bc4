import pytest

from tests.faults import counts


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = counts.lines()
    if lines:
        terminalreporter.section("faults, with nothing lost" if not terminalreporter.stats.get("failed") else "faults")
        for line in lines:
            terminalreporter.line(line)
