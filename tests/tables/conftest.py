"""A count of the DuckDBs that a test starts."""

from typing import Any

import duckdb
import pytest

from batchrec.tables.queries import connect


@pytest.fixture
def n_started(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """A list that grows with each DuckDB that is started, after the one that tests share."""
    with connect():
        pass
    started: list[None] = []
    start = duckdb.connect

    def counted(*args: Any, **options: Any) -> duckdb.DuckDBPyConnection:
        started.append(None)
        return start(*args, **options)

    monkeypatch.setattr("duckdb.connect", counted)
    return started
