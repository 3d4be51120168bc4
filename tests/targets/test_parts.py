"""Rows in several files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.targets.parts import PART_PATH, recorded_sha256, write_parts
from batchrec.targets.rows import open_rows
from tests.support.recs import recs_rows, write_recs


def test_a_new_part_begins_once_one_is_large_enough(tmp_path: Path) -> None:
    table = write_recs(tmp_path / "recs.parquet", recs_rows({user: [1, 2, 3] for user in range(100)}))
    with open_rows(table, "long", is_dated=False, batch_rows=30) as rows:
        parts = write_parts(rows, table.metadata, lambda name: (tmp_path / name).open("wb"), part_bytes=3000)
    assert list(parts) == sorted(parts)
    assert len(parts) > 2
    assert all(PART_PATH.fullmatch(f"run_date=2026-11-24/{name}") for name in parts)
    tables = [pq.read_table(tmp_path / name) for name in parts]
    assert [len(part) for part in tables] == list(parts.values())
    assert pa.concat_tables(tables).equals(pq.read_table(table.recs))
    assert all((tmp_path / name).stat().st_size >= 3000 for name in list(parts)[:-1])
    assert {recorded_sha256(tmp_path / name) for name in parts} == {table.sha256}


@pytest.mark.parametrize("contents", [b"", b"PAR1 or not PAR1"])
def test_another_file_records_no_sha256(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "x").write_bytes(contents)
    assert recorded_sha256(tmp_path / "x") is None
    assert recorded_sha256(write_recs(tmp_path / "recs.parquet", recs_rows({1: [2]})).recs) is None
