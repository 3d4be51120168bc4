"""An exact index over the exported vectors finds the lists of score."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import Objective, ScoringConfig, VectorsConfig
from batchrec.errors import ConfigError, ModelError
from batchrec.model.directory import load_model
from batchrec.scoring.score import score
from batchrec.scoring.vectors import export_vectors
from tests.support.models import (
    SHAPE,
    model_of,
    names_in,
    run_cli,
    string_model,
    trained_model,
    training_histories,
    write_sequences,
)

# Two users have no item of the model.
HISTORIES = training_histories() | {501: [7, 8], 503: []}


def exported(sequences: Path, model: Path) -> tuple[pa.Table, pa.Table]:
    export_vectors(sequences, model, VectorsConfig(device="cpu"), sequences.parent / "vectors")
    items, users = (pq.read_table(sequences.parent / "vectors" / f"{name}.parquet") for name in ("items", "users"))
    return items, users


def matrix(table: pa.Table) -> Any:
    return np.stack(table["vector"].to_numpy())


def test_an_exact_index_finds_the_lists_of_score(objective: Objective, tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    config = ScoringConfig(device="cpu", keep_seen=True)
    score(sequences, model_of(objective), config, tmp_path / "recs.parquet")
    recs = pq.read_table(tmp_path / "recs.parquet").to_pylist()
    items, users = exported(sequences, model_of(objective))
    scores = matrix(users) @ matrix(items).T
    assert users["user_id"].to_pylist() == list(training_histories())
    for user, own in zip(users["user_id"].to_pylist(), scores, strict=True):
        best = np.argsort(-own, kind="stable")[:10]
        expected = [row for row in recs if row["user_id"] == user]
        assert own[best].tolist() == pytest.approx([row["score"] for row in expected], abs=1e-5)
        score_of = dict(zip(items["item_id"].to_pylist(), own.tolist(), strict=True))
        assert [score_of[row["item_id"]] for row in expected] == pytest.approx(own[best].tolist(), abs=1e-5)


def test_vectors_follow_the_contract(tmp_path: Path) -> None:
    histories = {"a": ["item-1001"], "b": ["item-1002", "item-1003"]}
    sequences = write_sequences(tmp_path / "sequences.parquet", histories, pa.string(), pa.string())
    items, users = exported(sequences, string_model())
    vector = pa.field("vector", pa.list_(pa.field("element", pa.float32(), nullable=False), SHAPE.hidden_size + 1))
    for table, column in ((items, "item_id"), (users, "user_id")):
        assert [field.name for field in table.schema] == [column, "vector"]
        assert table.schema.field(column).type == pa.string()
        assert table.schema.field("vector").type == vector.type
        assert table.schema.metadata[b"batchrec.contract"] == b"vectors/1"
        assert table.schema.metadata[b"batchrec.model_id"].decode() == load_model(string_model()).manifest.model_id
        assert table["vector"].null_count == 0
    assert items["item_id"].equals(pa.chunked_array([load_model(string_model()).vocabulary.item_ids]))
    assert (matrix(users)[:, -1] == 1).all()


def test_users_without_a_known_item_are_counted(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    report = export_vectors(sequences, trained_model(), VectorsConfig(device="cpu"), tmp_path / "vectors")
    assert (report.users, report.users_without_vector) == (len(training_histories()), 2)
    assert (report.items, report.dimensions) == (40, SHAPE.hidden_size + 1)


def test_an_error_leaves_the_old_vectors(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    exported(sequences, trained_model())
    old = {path.name: path.read_bytes() for path in (tmp_path / "vectors").iterdir()}
    write_sequences(sequences, {1: ["a"]}, item_type=pa.string())
    with pytest.raises(ModelError):
        exported(sequences, trained_model())
    assert {path.name: path.read_bytes() for path in (tmp_path / "vectors").iterdir()} == old
    assert names_in(tmp_path) == {"sequences.parquet", "vectors"}


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match=r"exists and holds no users\.parquet"):
        exported(sequences, trained_model())
    for name in ("items.parquet", "users.parquet"):
        (tmp_path / "vectors" / name).touch()
    with pytest.raises(ConfigError, match=r"vectors: holds thesis\.txt, which would be lost"):
        exported(sequences, trained_model())


def test_the_command_prints_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    paths = ("--sequences", sequences, "--model", trained_model(), "--out", tmp_path / "vectors")
    assert run_cli("export-vectors", *paths, "--device", "cpu", "--json") == 0
    assert '"users_without_vector": 2' in capsys.readouterr().out
