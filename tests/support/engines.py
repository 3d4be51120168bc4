"""Scorings with everything that engines must carry, compared with plain score row for row; workers that die."""

import os
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchrec.scoring.score
from batchrec.config import EngineName, ScoringConfig
from batchrec.scoring.engine import Engine
from batchrec.scoring.inputs import ScoringInputs, read_inputs
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from tests.support.models import trained_model, training_histories, write_sequences

# Of the last three, two are cold and one has no history. Users 61 and on make several chunks.
_TRAINED = training_histories()
HISTORIES = {user: list(_TRAINED[1 + user % 60]) for user in range(1, 700)} | {801: [7, 8], 802: [7], 803: []}
# 900 and 901 are in no history.
TABLES = {
    "users": "user_id\n" + "".join(f"{user}\n" for user in (*range(1, 650), 801, 901)),
    "block": "item_id\n1003\n",
    "pins": "item_id,position\n1005,2\n",
    "segments": "user_id,segment\n1,a\n801,b\n900,b\n",
    "items": "movieId,title,genre\n1005,Five,x\n1030,Thirty,x\n1031,More,y\n",
    "block_for_user": "user_id,item_id\n2,1007\n",
}


def write_tables(folder: Path, *names: str) -> dict[str, Any]:
    """Write some of the tables, and return the options that name them."""
    for name in names:
        (folder / f"{name}.csv").write_text(TABLES[name])
    return {name: str(folder / f"{name}.csv") for name in names}


def scorings(folder: Path, options: dict[str, Any], name: EngineName, engine: Engine | None) -> list[Path]:
    """Score plainly and by an engine, and return both tables; fail if their reports differ."""
    sequences = write_sequences(folder / "sequences.parquet", HISTORIES)
    config = ScoringConfig(device="cpu", workers=2, **options)
    plain, by_engine = folder / "plain.parquet", folder / f"{name}.parquet"
    reports = [
        score(sequences, trained_model(), config, plain),
        score(sequences, trained_model(), replace(config, engine=name), by_engine, engine=engine),
    ]
    assert _counts(reports[0]) == _counts(reports[1])
    return [plain, by_engine]


def assert_same(tables: list[Path]) -> None:
    """Compare two recs tables, with their metadata."""
    plain, by_engine = (pq.read_table(table) for table in tables)
    assert by_engine.equals(plain, check_metadata=True)
    assert len(plain) > 0


def _counts(report: ScoringReport) -> dict[str, Any]:
    return {name: value for name, value in asdict(report).items() if name not in ("out", "seconds")}


class Deadly:
    """Popular items, but a process that asks for a list is killed; marker: the first time makes it, and is the last.

    Without a marker all processes are killed.
    """

    def __init__(self, popular: Any, marker: Path | None) -> None:
        self._popular, self._marker = popular, marker

    def open(self) -> Any:
        return self._popular.open()

    def emptied_by(self, users: pa.RecordBatch) -> Any:
        return self._popular.emptied_by(users)

    def lists(self, users: pa.RecordBatch) -> Any:
        if self._marker is None or not self._marker.exists():
            if self._marker is not None:
                self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._popular.lists(users)


def kill_workers(monkeypatch: pytest.MonkeyPatch, marker: Path | None) -> None:
    """Let workers of the next scoring die while they score a chunk with cold users; marker: as for Deadly."""

    def read_deadly(*arguments: Any) -> ScoringInputs:
        inputs = read_inputs(*arguments)
        offer = replace(inputs.parts.offer, popular=Deadly(inputs.parts.offer.popular, marker))  # type: ignore[arg-type]
        return replace(inputs, parts=replace(inputs.parts, offer=offer))

    monkeypatch.setattr(batchrec.scoring.score, "read_inputs", read_deadly)
