"""A company for each test of the nights."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nights import Company, company


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    with company(tmp_path, monkeypatch) as made:
        yield made
