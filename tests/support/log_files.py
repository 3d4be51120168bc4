"""Small logs in files, and the results of build-sequences."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import Outcome

HEADER = "userId,movieId,timestamp\n"
T = 1_700_000_000
DAY = 86_400


def write(name: str, text: str | bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)


def write_parquet(name: str, **columns: Any) -> None:
    """Write one event, with the given columns replaced or added."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"userId": [1], "movieId": [2], "timestamp": [T]} | columns), name)


def log(*rows: str) -> None:
    write("ratings.csv", HEADER + "".join(f"{row}\n" for row in rows))


def events(outcome: Outcome) -> dict[Any, list[tuple[Any, int]]]:
    """Return the item and time of each event, by user."""
    return {row["user_id"]: list(zip(row["item_ids"], row["timestamps"], strict=True)) for row in outcome.rows}


def fails(outcome: Outcome, *words: str) -> None:
    """Assert that a run ended with a one-line error that has all the words."""
    assert outcome.exit_code in (2, 3), outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert [word for word in words if word not in outcome.stderr] == []
