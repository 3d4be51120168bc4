"""A headless Chromium for the tests. Without it, or without the extra, all tests are skipped."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the browser extra is not installed: run make test-browser")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed: the Debian package is chromium")
    with api.sync_playwright() as playwright:
        # As root Chromium starts only without its sandbox; it opens only pages that these tests wrote.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
