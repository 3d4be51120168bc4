"""A local file as target."""

from pathlib import Path

import pyarrow.parquet as pq

from batchrec.targets import open_target
from tests.support.damage import flip_a_bit
from tests.support.recs import recs_rows, write_recs


def test_a_nested_file_knows_the_table_it_was_made_from(tmp_path: Path) -> None:
    table = write_recs(tmp_path / "recs.parquet", recs_rows({user: [1, 2, 3] for user in range(20)}))
    target = open_target(str(tmp_path / "nested.parquet"), "nested")
    assert target.sha256() is None
    with target.replacing(table):
        assert not (tmp_path / "nested.parquet").exists()
    assert target.sha256() == table.sha256
    metadata = pq.read_schema(tmp_path / "nested.parquet").metadata
    assert (metadata[b"batchrec.run_id"], metadata[b"batchrec.model_id"]) == (b"r1", b"m1")
    flip_a_bit(tmp_path / "nested.parquet", 20)
    assert target.sha256() is None
