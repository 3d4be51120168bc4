from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.errors import ConfigError, InputError
from batchrec.tables.sequences_table import find_user, open_sequences, read_user
from tests.support.models import sequences_table, write_sequences


def test_a_user_is_found_in_any_row_group_and_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.tables.sequences_table._USERS_PER_BATCH", 2)
    histories = {user: [user, 7] for user in (4, 2, 9, 1, 8, 3, 6)}
    pq.write_table(sequences_table(histories), tmp_path / "s.parquet", row_group_size=3)
    sequences = open_sequences(tmp_path / "s.parquet")
    for user, items in histories.items():
        row = find_user(sequences, str(user))
        assert row is not None
        assert row.to_pylist() == [{"user_id": user, "item_ids": items, "timestamps": [0, 1], "also_seen": []}]
    assert find_user(sequences, "5") is None
    assert find_user(sequences, "four") is None


def test_blanks_around_an_id_do_not_count(tmp_path: Path) -> None:
    table = open_sequences(write_sequences(tmp_path / "s.parquet", {"a b ": [1], "c": [2]}, pa.string()))
    assert read_user(table, " a b")["item_ids"].to_pylist() == [[1]]
    with pytest.raises(ConfigError, match=r"--user ab: .* has no such user"):
        read_user(table, "ab")


def test_only_the_group_of_the_user_is_read(tmp_path: Path) -> None:
    broken, whole = sequences_table({1: [5, 6]}), sequences_table({2: [7]})
    backwards = broken.set_column(2, "timestamps", pa.array([[9, 3]], pa.list_(pa.int64())))
    with pq.ParquetWriter(tmp_path / "s.parquet", whole.schema) as writer:
        writer.write_table(backwards)
        writer.write_table(whole)
    sequences = open_sequences(tmp_path / "s.parquet")
    assert read_user(sequences, "2")["item_ids"].to_pylist() == [[7]]
    with pytest.raises(InputError, match="not in time order"):
        read_user(sequences, "1")
