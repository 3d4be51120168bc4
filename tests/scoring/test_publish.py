"""score --out: any target."""

from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import Layout, ScoringConfig
from batchrec.errors import ConfigError, StoreError
from batchrec.scoring import publish
from batchrec.scoring.publish import score_to
from batchrec.targets import open_target
from tests.support.models import names_in, trained_model, write_sequences
from tests.support.targets import read_folder

CONFIG = ScoringConfig(top_k=3, device="cpu", run_date="2026-11-24")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_sequences(Path("sequences.parquet"), {1: [1000, 1001], 2: [1002]})
    return tmp_path


def test_a_folder_holds_the_rows_of_the_file(folder: Path) -> None:
    for out in ("recs.parquet", "recs/"):
        report = score_to(out, Path("sequences.parquet"), trained_model(), CONFIG)
        assert report.out == str(open_target(out))
    assert read_folder("recs") == {"2026-11-24": pq.read_table("recs.parquet").to_pylist()}
    assert names_in(folder) == {"sequences.parquet", "recs.parquet", "recs"}


def test_a_file_may_be_nested(folder: Path) -> None:
    config = ScoringConfig(top_k=3, device="cpu", layout="nested")
    score_to("recs.parquet", Path("sequences.parquet"), trained_model(), config)
    assert duckdb.execute("select user_id, len(recommendations) from 'recs.parquet'").fetchall() == [(1, 3), (2, 3)]


def test_a_run_that_ended_while_publishing_resumes_from_its_checkpoints(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "publish", stopped)
        with pytest.raises(KeyboardInterrupt):
            score_to("recs/", Path("sequences.parquet"), trained_model(), CONFIG)
    left = names_in(folder) - {"sequences.parquet"}
    assert len(left) == 1
    monkeypatch.setattr("batchrec.model.ranker.Ranker.rank", stopped)
    with pytest.raises(KeyboardInterrupt):
        score_to("without-checkpoints/", Path("sequences.parquet"), trained_model(), CONFIG)
    score_to("recs/", Path("sequences.parquet"), trained_model(), CONFIG)
    assert names_in(folder) == {"sequences.parquet", "recs"}


def test_a_target_that_cannot_be_written_is_found_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("recs.db").write_bytes(b"no database" * 1000)
    monkeypatch.setattr(publish, "score_file", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(StoreError, match="not a valid DuckDB"):
        score_to("duckdb://recs.db?table=recs", Path("sequences.parquet"), trained_model(), CONFIG)
    assert names_in(folder) == {"sequences.parquet", "recs.db"}


@pytest.mark.parametrize("layout", ["long", "nested"])
@pytest.mark.parametrize("read", ["sequences.parquet", "block.parquet"])
def test_a_table_never_replaces_a_file_that_it_is_made_of(folder: Path, layout: Layout, read: str) -> None:
    pq.write_table(pa.table({"item_id": [1003]}), "block.parquet")
    Path("link.parquet").symlink_to(read)
    before = Path(read).read_bytes()
    config = replace(CONFIG, layout=layout, block="block.parquet")
    for out in (read, "link.parquet"):
        with pytest.raises(ConfigError, match=rf"^{out}: is also an input\. Pass another --out"):
            score_to(out, Path("sequences.parquet"), trained_model(), config)
    assert Path(read).read_bytes() == before
